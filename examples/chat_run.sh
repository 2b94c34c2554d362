#!/bin/sh
# 500 steps on conversations made of Moby-Dick: somebody says a sentence, the assistant the one that follows.
#   examples/chat_run.sh BIN_DIR [FOLDER] [scout-ft train options]
# BIN_DIR holds scout-convert and scout-ft. FOLDER (build/chat_run) gets the data, the container, and in run/ the
# adapter, checkpoints, metrics.jsonl, TensorBoard's events and report.html. May be stopped: started again it goes
# on. Prints the held-out losses; exit status 1 unless they fell. Some minutes on two cores.
set -eu
bin=$(cd "${1:?where are scout-convert and scout-ft?}" && pwd)
out=${2:-build/chat_run}
[ $# -lt 2 ] && shift || shift 2
cd "$(dirname "$0")/.."
mkdir -p "$out"

# Sentences of the book; a tenth of the pairs, from its end, is held out.
sed 's/[[:space:]]\{1,\}/ /g' examples/data/moby.txt | awk -v out="$out" '
    function said(role, text) { return "{\"role\": \"" role "\", \"content\": \"" text "\"}" }
    { gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/[[:cntrl:]]/, " ") }
    NF == 0 { before = ""; next }
    {
        while (match($0, /[.!?;]( |$)/)) {
            sentence = substr($0, 1, RSTART)
            $0 = substr($0, RSTART + RLENGTH)
            gsub(/^ +| +$/, "", sentence)
            if (length(before) > 20 && length(sentence) > 20 && length(before) + length(sentence) < 400)
                row[rows++] = "{\"messages\": [" said("user", before) ", " said("assistant", sentence) "]}"
            before = sentence
        }
    }
    END {
        for (i = 0; i < rows; i++)
            print row[i] > (out "/" (i < 0.9 * rows ? "train" : (i % 4 ? "rest" : "held-out")) ".jsonl")
    }'
[ -e "$out/tiny.scout" ] || "$bin/scout-convert" examples/tiny-scout -o "$out/tiny.scout" --model-id tiny-scout >"$out/convert.log"
"$bin/scout-ft" train --model "$out/tiny.scout" --data "$out/train.jsonl" --eval-data "$out/held-out.jsonl" \
    --max-seq-length 256 --per-device-train-batch-size 8 \
    --max-steps 500 --warmup-steps 20 --lr-scheduler-type cosine --learning-rate 2e-3 --eval-steps 100 --save-steps 100 \
    --save-total-limit 2 --load-best-model-at-end --logging-steps 50 --output-dir "$out/run" --resume "$@"
sed -n 's/^{"step": \([0-9]*\), .*"eval_loss": \([0-9.]*\).*/\1 \2/p' "$out/run/metrics.jsonl" | awk '
    { printf "held-out loss after step %d: %s\n", $1, $2; if (NR == 1) first = $2; last = $2 }
    END { if (!(last < first)) { print "it did not fall"; exit 1 } }'
