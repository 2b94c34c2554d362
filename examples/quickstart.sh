#!/bin/sh
# From a bare Debian or Ubuntu to a fine-tuned model, on the CPU, asking nothing:
#   examples/quickstart.sh [FOLDER]
# Installs what is missing, builds, converts examples/tiny-scout (a small real Llama 4), inspects and
# verifies the container, plans a run, fine-tunes on Moby-Dick, and shows the loss on text that the
# model was not trained on, before and after. What it makes lies in FOLDER (build/quickstart).
set -eu
cd "$(dirname "$0")/.."
out=${1:-build/quickstart}
build=build/quickstart-tools
export OMP_WAIT_POLICY=passive # a thread that waits gives its core away, should the machine be shared

say() {
    printf '\n== %s\n' "$*"
}
show() { # show COMMAND...: prints it as one would type it, then runs it
    echo "\$ $*"
    "$@"
}

say "1. install what the build needs (nothing if it is there)"
sh cmake/install-deps.sh build

say "2. build"
generator=
if [ ! -e $build/CMakeCache.txt ] && command -v ninja >/dev/null 2>&1; then
    generator=-GNinja
fi
mkdir -p $build "$out"
cmake --preset release -B $build $generator -DSCOUT_TESTS=OFF >$build/configure.log 2>&1 || {
    cat $build/configure.log >&2
    exit 1
}
cmake --build $build --parallel "$(nproc)" >$build/build.log 2>&1 || {
    tail -n 50 $build/build.log >&2
    exit 1
}
PATH=$PWD/$build/bin:$PATH
echo "scout-convert, scout-inspect and scout-ft are in $build/bin"

say "3. convert a Hugging Face checkpoint"
model=$out/tiny-scout.scout
show scout-convert examples/tiny-scout -o "$model"

say "4. look at it, and check every byte"
show scout-inspect "$model"
show scout-inspect verify "$model"

say "5. the text: its last 250 lines are held out, the rest is trained on"
head -n -250 examples/data/moby.txt >"$out/train.txt"
tail -n 250 examples/data/moby.txt >"$out/held-out.txt"
wc -c "$out/train.txt" "$out/held-out.txt"

# The recipe, once for the plan and once for the run: 100 steps of 8 rows of 256 tokens.
recipe="--per-device-train-batch-size 8 --max-seq-length 256 --max-steps 100
    --learning-rate 2e-3 --lr-scheduler-type cosine --warmup-steps 10 --weight-decay 0.01
    --lora-r 16 --lora-alpha 32"

say "6. what training will take, before it starts"
# shellcheck disable=SC2086 # the recipe is many words
show scout-ft plan --model "$model" $recipe

say "7. held-out loss of the model as it is"
show scout-ft eval --model "$model" --data "$out/held-out.txt" --max-seq-length 256 |
    tee "$out/before.log"

say "8. fine-tune"
# shellcheck disable=SC2086
show scout-ft train --model "$model" --data "$out/train.txt" --output-dir "$out/adapter" \
    --overwrite-output-dir $recipe

say "9. held-out loss with the adapter"
show scout-ft eval --model "$model" --adapter "$out/adapter" --data "$out/held-out.txt" \
    --max-seq-length 256 | tee "$out/after.log"

loss_in() {
    sed -n 's/^held-out loss \([0-9.]*\).*/\1/p' "$1"
}
before=$(loss_in "$out/before.log")
after=$(loss_in "$out/after.log")
say "done: held-out loss $before -> $after; the PEFT adapter is in $out/adapter"
awk -v before="$before" -v after="$after" 'BEGIN { exit !(after > 0 && after < 4.5 && before > 5) }' || {
    echo "quickstart: expected a held-out loss that falls from about 5.6 to below 4.5" >&2
    exit 1
}
