#!/bin/sh
# A run that is stopped at 20 random moments by SIGTERM, and one at 20 by SIGKILL, each going on after every one
# of them: the same adapter, moments and rows, bit for bit, as the run that nobody stopped. Also a disk that
# takes no more while a checkpoint is written.
#   test_resume.sh SCOUT_CONVERT SCOUT_FT SOURCE_DIR SCRATCH_DIR [DEVICE]
# SCOUT_SEED=N chooses the moments again that a failure has told.
# shellcheck disable=SC2086,SC2046,SC2012 # $run is many words; names here are plain
set -u
convert=$1 ft=$2 source=$3 scratch=$4 device=${5:-cpu}
LC_ALL=C
export LC_ALL
seed=${SCOUT_SEED:-$(date +%s)}
steps=60 kills=20
failures=0
fail() {
    echo "test_resume: $1 (SCOUT_SEED=$seed)" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >log 2>&1 || fail "conversion: $(cat log)"
head -c 12000 "$source/examples/data/moby.txt" >train.txt
tail -c 1000 "$source/examples/data/moby.txt" >held-out.txt
run="train --model m.scout --data train.txt --eval-data held-out.txt --max-seq-length 16 --per-device-train-batch-size 2
    --gradient-accumulation-steps 2 --max-steps $steps --eval-steps 7 --save-steps 4 --save-total-limit 2 --learning-rate 2e-3
    --load-best-model-at-end --lr-scheduler-type cosine --warmup-steps 5 --weight-decay 0.01 --threads 1 --device $device"

# Rows without what a clock or the machine says.
rows() {
    sed -E 's/"(eval_seconds|seconds|tokens_per_second|model_flops_per_second|matmul_share|memory_bytes|time)": [0-9.e+-]+(, )?//g' "$1/metrics.jsonl"
}
# same FOLDER WHOLE WHEN: what both leave is the same.
same() {
    cmp -s "$1/adapter_model.safetensors" "$2/adapter_model.safetensors" || fail "$3: another adapter"
    cmp -s "$1/checkpoint-$steps/optimizer.bin" "$2/checkpoint-$steps/optimizer.bin" || fail "$3: other moments"
    rows "$1" >rows.a
    rows "$2" >rows.b
    cmp -s rows.a rows.b || fail "$3: other rows: $(diff rows.a rows.b | head -4)"
    [ "$(ls -d "$1"/checkpoint-* | sort)" = "$(ls -d "$2"/checkpoint-* | sed "s#^$2/#$1/#" | sort)" ] ||
        fail "$3: other checkpoints: $(ls -d "$1"/checkpoint-*)"
}
lines() {
    [ -e "$1/metrics.jsonl" ] && wc -l <"$1/metrics.jsonl" || echo 0
}
# wait_for CHILD FOLDER SESSION: until it has written 0 to 3 more rows, and a moment longer.
wait_for() {
    set -- "$1" "$2" $(echo "$seed $3" | awk '{srand($1 * 1000 + $2); print int(4 * rand()), 0.06 * rand()}')
    target=$(($(lines "$2") + $3))
    while [ "$(lines "$2")" -lt $target ] && kill -0 "$1" 2>/dev/null; do sleep 0.01; done
    sleep "$4"
}
# chain SIGNAL FOLDER OPTIONS: goes on until it is done, stopped $kills times on the way.
chain() {
    signal=$1 folder=$2
    shift 2
    n=0 stopped=0 going=0
    while [ $n -lt 200 ]; do
        n=$((n + 1))
        "$ft" $run --output-dir "$folder" --resume "$@" >out 2>err &
        child=$!
        if [ $stopped -lt $kills ]; then
            wait_for $child "$folder" $n
            kill -s "$signal" $child 2>/dev/null && stopped=$((stopped + 1))
        fi
        wait $child 2>/dev/null
        status=$?
        grep -q '^going on behind' err && going=$((going + 1))
        case $status in
        0) grep -q '^done after' out && break ;;
        143) [ "$signal" = TERM ] || fail "SIG$signal: exit status $status" ;; # before it could be caught
        137) [ "$signal" = KILL ] || fail "SIG$signal: exit status $status" ;;
        *) fail "SIG$signal, session $n: exit status $status: $(tail -n 3 err)" ;;
        esac
    done
    [ $status -eq 0 ] || fail "SIG$signal: not done after $n sessions: $(tail -n 3 err)"
    [ $stopped -eq $kills ] || fail "SIG$signal: stopped $stopped times, not $kills"
    [ $going -ge 5 ] || fail "SIG$signal: only $going of $n sessions went on from a checkpoint"
    echo "SIG$signal: $stopped times stopped, $going of $n sessions went on from a checkpoint"
}

"$ft" $run --output-dir whole >out 2>err || {
    [ "$device" = cuda ] && grep -Eq 'no NVIDIA driver|no CUDA device' err && {
        echo "skipped: $(cat err)"
        exit 77
    }
    fail "the whole run: $(cat err)"
}
"$ft" $run --output-dir whole8 --optim adamw_8bit >out 2>err || fail "the whole run: $(cat err)"
cp -r whole finished
"$ft" $run --output-dir finished --resume >out 2>err || fail "a finished run: $(cat err)"
same finished whole "a finished run that goes on"
chain TERM term
same term whole "after SIGTERM"
chain KILL kill --optim adamw_8bit
same kill whole8 "after SIGKILL"

# A disk that takes no more: the save fails, what was saved stays, and goes on.
"$ft" $run --output-dir full >out 2>err &
child=$!
while [ ! -e full/checkpoint-8 ] && kill -0 $child 2>/dev/null; do sleep 0.05; done
kill -s KILL $child
wait $child 2>/dev/null
(
    ulimit -f 400
    "$ft" $run --output-dir full --resume >out 2>err
)
[ $? -eq 1 ] || fail "a full disk: exit status is not 1"
grep -Eq '^scout-ft: checkpoint of step [0-9]+: .*(too large|No space)' err || fail "a full disk: says $(tail -n 1 err)"
ls -d full/checkpoint-*.partial >log 2>&1 && fail "a full disk: half a checkpoint is left"
"$ft" $run --output-dir full --resume >out 2>err || fail "after a full disk: $(cat err)"
same full whole "after a full disk"

[ "$failures" -eq 0 ] || exit 1
echo "test_resume: all checks passed"
