#!/bin/sh
# scout-convert --max-part-size: several files that every tool takes for one, and what is said when one
# of them is missing, damaged, of another container, or in another's place.
#   test_convert_parts.sh SCOUT_CONVERT SCOUT_INSPECT SCOUT_FT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 ft=$3 get=$4 source=$5 scratch=$6
tiny=$source/examples/tiny-scout
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_convert_parts: $1" >&2
    failures=$((failures + 1))
}
runs() { # runs COMMAND...: exit status 0
    "$@" >out 2>err || fail "$*: $(cat err)"
}
refuses() { # refuses STATUS PATTERN COMMAND...: one sentence on stderr that matches
    status=$1 pattern=$2
    shift 2
    "$@" >out 2>err
    got=$?
    [ "$got" = "$status" ] || fail "$*: exit status $got, not $status"
    grep -Eq -- "$pattern" err || fail "$*: says \"$(cat err)\", not \"$pattern\""
    [ "$status" != 1 ] || [ "$(wc -l <err)" = 1 ] || fail "$*: not one line but: $(cat err)"
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
runs "$convert" "$tiny" -o one.scout --model-id tiny
runs "$convert" "$tiny" -o set.scout --model-id tiny --max-part-size 2MB --report report.json
grep -q 'in 5 files' out || fail "does not say that there are 5 files"
grep -q '^set-00001-of-00005.scout: ' out || fail "does not name the first file"
first=set-00001-of-00005.scout
[ "$(echo set*)" = "set-00001-of-00005.scout set-00002-of-00005.scout set-00003-of-00005.scout \
set-00004-of-00005.scout set-00005-of-00005.scout" ] || fail "files: $(echo set*)"
for file in set-*; do
    [ "$(wc -c <"$file")" -le 2000000 ] || fail "$file is larger than asked for"
done
[ "$("$get" report.json container_files)" = 5 ] || fail "the report does not count the files"
[ "$("$get" report.json container_bytes)" = "$(cat set-* | wc -c)" ] || fail "the report's bytes"
"$convert" "$tiny" --dry-run --max-part-size 2MB >out 2>err
grep -q 'in 5 files: one without tensors and 1.97 MB, 1.18 MB, 1.12 MB, 1.58 MB' out ||
    fail "the dry run does not tell the files"

# ---- the same bytes whatever the number of threads ----
for threads in 1 2 4; do
    mkdir t$threads
    runs "$convert" "$tiny" -o t$threads/set.scout --model-id tiny --max-part-size 2MB --threads $threads
    for file in set-*; do
        cmp "$file" "t$threads/$file" || fail "$file is another with $threads threads"
    done
done

# ---- every tool takes it for one ----
runs "$inspect" verify $first
runs "$inspect" diff one.scout $first
runs "$inspect" verify $first --against "$tiny"
runs "$inspect" $first
grep -q 'in 5 files' out || fail "scout-inspect does not count the files"
runs "$inspect" $first --json
cp out summary.json
[ "$("$get" summary.json file.files)" = 5 ] || fail "scout-inspect --json does not count the files"
[ "$("$get" summary.json file.bytes)" = "$(cat set-* | wc -c)" ] || fail "scout-inspect's bytes"
"$inspect" one.scout --json >one.json
[ "$("$get" summary.json file.identity)" = "$("$get" one.json file.identity)" ] || fail "another identity"
for what in tensors experts files tokenizer; do
    "$inspect" $what one.scout >one.out 2>&1
    "$inspect" $what $first >set.out 2>&1
    sed 's/^ *[0-9,]* *//' one.out >one.cut # offsets are those in the file
    sed 's/^ *[0-9,]* *//' set.out | cmp -s - one.cut || fail "scout-inspect $what: not as of one file"
done
for name in model.layers.3.feed_forward.experts.2.down_proj.weight lm_head.weight; do
    for model in one.scout $first; do
        runs "$inspect" extract $model language_model.$name -o npy-$model.npy
    done
    cmp npy-one.scout.npy npy-$first.npy || fail "$name is extracted as another"
done
for form in hf-bf16 hf-bnb4; do
    runs "$convert" export one.scout --to $form -o x-one-$form
    runs "$convert" export $first --to $form -o x-set-$form
    diff -r x-one-$form x-set-$form >difference || fail "$form: $(cat difference)"
done
head -c 1500 "$source/examples/data/moby.txt" >rows.txt
for model in one.scout $first; do
    runs "$ft" train --model $model --data rows.txt --output-dir run-$model --device cpu --threads 1 \
        --max-seq-length 16 --max-steps 2
done
cmp run-one.scout/adapter_model.safetensors run-$first/adapter_model.safetensors ||
    fail "training gives another adapter"

# ---- the wrong files ----
refuses 1 'file 2 of 5: give the first, which ends in -00001-of-00005.scout' "$inspect" verify set-00002-of-00005.scout
refuses 1 'file 4 of 5: give the first' "$ft" plan --model set-00004-of-00005.scout
cp $first elsewhere.scout
refuses 1 'elsewhere.scout: the first file of 5, so its name must end in' "$inspect" elsewhere.scout
mv set-00003-of-00005.scout kept
refuses 1 'file 3 of 5: set-00003-of-00005.scout: cannot open: No such file' "$inspect" $first
refuses 1 'file 3 of 5: set-00003-of-00005.scout: cannot open: No such file' "$convert" export $first --to hf-bf16 -o y
cp set-00004-of-00005.scout set-00003-of-00005.scout
refuses 1 'set-00003-of-00005.scout: file 4 of 5, not file 3 of 5' "$inspect" $first
cp one.scout set-00003-of-00005.scout
refuses 1 'set-00003-of-00005.scout: a container of its own, not file 3 of 5' "$inspect" verify $first
mkdir other
runs "$convert" "$tiny" -o other/set.scout --scale search --max-part-size 2MB
cp other/set-00003-of-00005.scout .
refuses 1 'set-00003-of-00005.scout: of another container: its identity is [0-9a-f]{32}, not [0-9a-f]{32}' "$inspect" $first
head -c 600000 kept >set-00003-of-00005.scout
refuses 1 'set-00003-of-00005.scout: header: the file has 600000 bytes, its header says [0-9]+ \(truncated\)' "$inspect" $first
cp kept set-00003-of-00005.scout
printf '\252' | dd of=set-00003-of-00005.scout bs=1 seek=8000 conv=notrunc 2>/dev/null
refuses 1 '1 of 89 chunks damaged' "$inspect" verify $first
grep -q '^damaged: bytes 4096..69632 of set-00003-of-00005.scout: .*layer 2 expert 1' out ||
    fail "the damage is told as: $(cat out)"
mv kept set-00003-of-00005.scout
runs "$inspect" verify $first

# ---- limits ----
refuses 1 'embedding|head is never split and needs a file of 1118208' "$convert" "$tiny" -o y.scout --max-part-size 700kB
refuses 2 'is no size' "$convert" "$tiny" -o y.scout --max-part-size much
refuses 2 'is no size' "$convert" "$tiny" -o y.scout --max-part-size 0
ls y* >left 2>/dev/null && fail "left: $(cat left)"

# ---- stopped: other options are noticed, the same ones go on, --restart forgets all files ----
rm -rf stopped
mkdir stopped
(
    ulimit -f 1000 # a file of more than 512,000 bytes cannot be written
    "$convert" "$tiny" -o stopped/set.scout --model-id tiny --max-part-size 2MB
) >out 2>err
[ $? = 1 ] || fail "a full disk goes unnoticed"
runs "$convert" "$tiny" -o stopped/set.scout --model-id tiny --max-part-size 2MB
for file in set-*; do
    cmp "$file" "stopped/$file" || fail "$file is another after going on"
done
[ "$(echo stopped/*)" = "$(echo stopped/set-0000?-of-00005.scout)" ] || fail "left: $(ls stopped)"

exit "$failures"
