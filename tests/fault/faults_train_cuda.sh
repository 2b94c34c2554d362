#!/bin/sh
# A short run of the tiny model on CUDA, again and again, each time with another CUDA call failing
# (kernels/cuda_fault.h), and with the device gone from the n-th call on. Each run ends with the
# reference's adapter, or with one sentence and exit status 1; --resume then gives that adapter.
#   faults_train_cuda.sh SCOUT_CONVERT SCOUT_FT SOURCE_DIR SCRATCH_DIR [PER_KIND]
# PER_KIND calls of each kind, the first and the last among them; 0: every one.
set -u
convert=$1 ft=$2 source=$3 scratch=$4 most=${5:-12}

injected=0 succeeded=0 refused=0 resumed=0 checkpoints=0 lost=0
lose() {
    echo "LOST: $kind at call $n: $1: $(tail -n 3 err)"
    lost=$((lost + 1))
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >out 2>err || {
    cat err >&2
    exit 1
}
head -c 1500 "$source/examples/data/moby.txt" >rows.txt

# train FOLDER: what its checkpoints lack.
train() {
    timeout -s KILL 60 "$ft" train --model m.scout --data rows.txt --output-dir "$1" --device cuda --threads 1 \
        --max-seq-length 16 --max-steps 3 --save-steps 1 --resume >out 2>err
}
same() {
    cmp -s "$1/adapter_model.safetensors" whole/adapter_model.safetensors
}
SCOUT_CUDA_FAULT_REPORT=$PWD/counts train whole || {
    grep -Eq 'no NVIDIA driver|no CUDA device' err && {
        echo "skipped: $(cat err)"
        exit 77
    }
    cat err >&2
    exit 1
}
[ -s whole/adapter_model.safetensors ] || {
    echo "faults_train_cuda: the reference has no adapter: $(ls whole)" >&2
    exit 1
}
cat counts

inject() {
    rm -rf run report
    SCOUT_CUDA_FAULT=$kind:$n SCOUT_CUDA_FAULT_REPORT=$PWD/report train run
    status=$?
    grep -q '^hit 1' report 2>/dev/null && injected=$((injected + 1))
    case $status in
    0)
        succeeded=$((succeeded + 1))
        same run || lose "another adapter"
        return
        ;;
    1)
        refused=$((refused + 1))
        [ "$(grep -c '^scout-ft: ' err)" = 1 ] || lose "not one sentence"
        ;;
    *) lose "exit status $status" ;; # a crash, or 137: a hang
    esac
    ls -d run/*.partial >/dev/null 2>&1 && lose "left half a checkpoint"
    before=$(ls -d run/checkpoint-* 2>/dev/null | wc -l)
    checkpoints=$((checkpoints + (before > 0)))
    train run || lose "does not go on after it"
    [ "$before" = 0 ] || grep -q '^going on behind' err || lose "$before checkpoints, but began anew"
    same run && resumed=$((resumed + 1)) || lose "another adapter after --resume"
}
for kind in alloc copy launch make wait other lost; do
    calls=$(sed -n "s/^$kind //p" counts)
    [ $kind != lost ] || calls=$(sed -n 's/^any //p' counts)
    count=$calls
    [ "$most" = 0 ] || [ "$calls" -le "$most" ] || count=$most
    i=0
    while [ $i -lt "$count" ]; do
        n=$((count > 1 ? 1 + i * (calls - 1) / (count - 1) : 1))
        inject
        i=$((i + 1))
    done
done

echo "faults_train_cuda: $injected faults injected, $succeeded runs succeeded, $refused refused with one sentence," \
    "$checkpoints had checkpoints, $resumed resumed byte-identical, $lost lost"
[ "$lost" -eq 0 ] && [ "$injected" -gt 0 ] || exit 1
cd / && rm -rf "$scratch"
