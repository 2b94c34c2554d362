#!/bin/sh
# Trains on a container of Scout's full geometry, synthetic weights, and prints one line a configuration: bytes
# planned, most bytes seen from outside (nvidia-smi, this process alone), tokens/s, loss, expert load.
#   full_size.sh BUILD DIRECTORY [LAYERS]      DIRECTORY: RAM-backed, 61 GB for 48 layers
# Needs a GPU, nvidia-smi and python3. CONFIGS (lines "name|options") replaces the list below.
set -eu
build=$1 dir=$2 layers=${3:-48}
model=$dir/scout-$layers.scout
mkdir -p "$dir"
[ -f "$model" ] || "$build/tests/bench/synth_container" "$model" --layers "$layers"

rows() { # file, length, count: rows of random token ids
    python3 - "$1" "$2" "$3" <<'P'
import json, random, sys
random.seed(7)
with open(sys.argv[1], "w") as f:
    for _ in range(int(sys.argv[3])):
        f.write(json.dumps({"input_ids": [random.randrange(200000) for _ in range(int(sys.argv[2]))]}) + "\n")
P
}

watch_memory() { # pid, file: the most MiB that the process was seen to use
    most=0
    while kill -0 "$1" 2>/dev/null; do
        now=$(nvidia-smi --query-compute-apps=pid,used_memory --format=csv,noheader,nounits 2>/dev/null |
            awk -F', ' -v pid="$1" '$1 == pid { print $2 }')
        [ -n "$now" ] || now=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -1)
        [ "${now:-0}" -gt "$most" ] && most=$now && echo "$most" >"$2"
        sleep 0.2
    done
}

configs=${CONFIGS:-"2048 full|--max-seq-length 2048 --recompute full
4096 auto|--max-seq-length 4096
4096 auto r16|--max-seq-length 4096 --lora-r 16
4096 full|--max-seq-length 4096 --recompute full
4096 full offload|--max-seq-length 4096 --recompute full --offload
8192 auto|--max-seq-length 8192"}
printf '%-20s %14s %10s %10s %10s %8s %s\n' configuration planned seen_MiB tokens/s loss load again
echo "$configs" | while IFS='|' read -r name options; do
    length=$(echo "$options" | sed -n 's/.*--max-seq-length \([0-9]*\).*/\1/p')
    rank="--lora-r 64"
    case $options in *--lora-r*) rank= ;; esac
    [ -f "$dir/rows-$length.jsonl" ] || rows "$dir/rows-$length.jsonl" "$length" "${STEPS:-6}"
    rm -rf "$dir/out"
    # shellcheck disable=SC2086
    "$build/bin/scout-ft" train --model "$model" --data "$dir/rows-$length.jsonl" --output-dir "$dir/out" \
        --per-device-train-batch-size 1 --num-train-epochs 1 --learning-rate 1e-4 --save-steps 0 \
        --lora-alpha 128 $rank $options ${EXTRA:-} >"$dir/log" 2>"$dir/err" &
    pid=$!
    echo 0 >"$dir/most"
    watch_memory $pid "$dir/most"
    wait $pid || { printf '%-20s failed: %s\n' "$name" "$(tail -1 "$dir/err")"; continue; }
    python3 - "$name" "$dir" <<'P'
import json, re, statistics, sys
name, folder = sys.argv[1:]
steps = [json.loads(line) for line in open(folder + "/out/metrics.jsonl")]
text = open(folder + "/err").read()
planned = re.search(r"; ([0-9.]+ \w+) of ", text)
again = re.search(r"made again in the backward: (.*)", text)
rate = statistics.median(s["tokens_per_second"] for s in steps[1:])
print("%-20s %14s %10s %10.0f %10.4f %8.2f %s" % (
    name, planned.group(1) if planned else "?", open(folder + "/most").read().strip(), rate,
    steps[-1]["loss"], steps[-1].get("expert_load_mean", 0), again.group(1) if again else ""))
P
    [ -z "${EXTRA:-}" ] || sed -n '/^phase/,$p' "$dir/log"
    grep 'loaded in' "$dir/err" || true
done
