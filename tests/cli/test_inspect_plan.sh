#!/bin/sh
# scout-inspect plan: the figures of scout-ft plan, on named cards, without CUDA.
#   test_inspect_plan.sh SCOUT_CONVERT SCOUT_INSPECT SCOUT_FT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 ft=$3 json_get=$4 source=$5 scratch=$6
unset COLUMNS
failures=0
fail() {
    echo "test_inspect_plan: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >log 2>&1 || {
    cat log >&2
    exit 1
}

for options in '' '--max-seq-length 512 --per-device-train-batch-size 3' '--lora-r 64 --recompute full' \
    '--target-modules q_proj,v_proj --gradient-accumulation-steps 4'; do
    # shellcheck disable=SC2086 # options are words
    "$inspect" plan m.scout --card 20000000000 $options >mine 2>err || fail "plan $options: $(cat err)"
    # shellcheck disable=SC2086
    "$ft" plan --model m.scout --device cuda --vram-limit 20GB $options >theirs 2>err || fail "scout-ft plan $options: $(cat err)"
    cmp -s mine theirs || fail "plan $options: scout-ft plan has other figures"
    grep -q '^on the card$' mine || fail "plan $options: no card is in it"
done

"$inspect" plan m.scout >out 2>err || fail "plan of all cards: $(cat err)"
for card in h100-80 a100-80 l40s 4090; do
    grep -Eq "^$card +[0-9.]+ GB +fits " out || fail "no line for $card: $(cat out)"
done
"$inspect" plan m.scout --card 4090 --card=1000 --json >out 2>err || fail "plan as JSON: $(cat err)"
[ "$("$json_get" out 'cards#')" = 2 ] || fail "not two cards"
[ "$("$json_get" out 'cards[0].name')" = 4090 ] || fail "the first card is not the first"
"$json_get" out 'cards[1].why' >why
grep -q '1000 bytes do not hold' why || fail "why 1000 bytes are not enough: $(cat why)"
used=$("$json_get" out 'cards[0].used_bytes')
sum=0
for part in library workspace weight adapter step reserve; do
    sum=$((sum + $("$json_get" out "cards[0].${part}_bytes")))
done
[ "$used" = "$sum" ] || fail "the parts are $sum, not $used"

"$inspect" plan m.scout --card 1000 >out 2>err && fail "1000 bytes are enough"
grep -q '^scout-inspect: 1000 bytes do not hold' err || fail "stderr: $(cat err)"
"$inspect" plan m.scout --card h999 >out 2>err
[ $? = 2 ] || fail "a card that nobody knows"
"$inspect" plan m.scout --device cpu >out 2>err
[ $? = 2 ] || fail "a plan of the processor"
"$inspect" plan m.scout --lora-rank 3 >out 2>err
grep -q '^scout-inspect: unknown option --lora-rank; did you mean --lora-r?' err || fail "stderr: $(cat err)"
"$inspect" plan >out 2>err && fail "a plan of nothing"
if command -v ldd >/dev/null 2>&1; then
    ldd "$inspect" | grep -Ei 'cuda|cublas|openblas' && fail "scout-inspect is linked with libraries that a look does not need"
fi
[ "$failures" = 0 ] || exit 1
echo "test_inspect_plan: all checks passed"
