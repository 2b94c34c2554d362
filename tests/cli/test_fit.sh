#!/bin/sh
# scout-ft plan on smaller and smaller cards: the least limit that is taken is the plan's own figure, and every
# remedy that a refusal names is one.
#   test_fit.sh SCOUT_CONVERT SCOUT_FT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 ft=$2 json_get=$3 source=$4 scratch=$5
failures=0 remedies=0
fail() {
    echo "test_fit: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >log 2>&1 || {
    cat log >&2
    exit 1
}
# shellcheck disable=SC2086 # options are words
plan() { "$ft" plan --model m.scout --device cuda $options "$@"; }

# The least bytes that are taken, between what is refused and what is taken.
least() {
    low=$1 high=$2
    while [ $((high - low)) -gt 4096 ]; do
        middle=$(((low + high) / 2))
        if plan --vram-limit $middle >/dev/null 2>err; then high=$middle; else low=$middle; fi
    done
    echo "$high"
}

for options in '--recompute full --offload --lora-r 64' '--recompute none --lora-r 16 --max-seq-length 512'; do
    need=$(plan --json >plan.json && "$json_get" plan.json device.bytes) || fail "$options: no plan"
    found=$(least $((need / 2)) $((need * 2)))
    [ "$found" -le $((need + need / 100)) ] && [ "$found" -ge $((need - need / 100)) ] ||
        fail "$options: $need bytes planned, $found are taken"
done

# Refusals: one sentence, and what it says would fit does.
for case in '--recompute none|960000000' '--lora-r 64|965000000' '--lora-r 128 --gradient-accumulation-steps 2|905000000'; do
    options=${case%|*} limit=${case#*|}
    plan --vram-limit "$limit" >out 2>err && { fail "$options was taken at $limit: $(tail -1 out)"; continue; }
    [ "$(wc -l <err)" -eq 1 ] && [ ! -s out ] || fail "$options: not one sentence: $(cat err)"
    named=$(sed -n 's/.*what would fit: //p' err)
    [ -n "$named" ] || fail "$options: nothing is named: $(cat err)"
    rest=$named
    while [ -n "$rest" ]; do
        remedy=${rest%%, or *}
        case $rest in *', or '*) rest=${rest#*, or } ;; *) rest= ;; esac
        remedies=$((remedies + 1))
        given=$options # an option is given once: the remedy's instead of the one that was
        options=$(echo "$given" | sed "s/${remedy%% *} [^ ]*//")
        # shellcheck disable=SC2086
        plan --vram-limit "$limit" $remedy >out 2>err || fail "$given: \"$remedy\" does not fit: $(cat err)"
        options=$given
    done
done
[ "$remedies" -ge 3 ] || fail "only $remedies remedies were named"

[ $failures -eq 0 ] || exit 1
echo "test_fit: the least limit taken is the plan's figure; $remedies remedies, all of them true"
