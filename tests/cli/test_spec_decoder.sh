#!/bin/sh
# The reader that was written from spec/ alone agrees with libformat on every tensor, list and
# carried file of real containers, of the format suites' one, and of the worked bytes.
#   test_spec_decoder.sh SCOUT_CONVERT SPEC_DECODER SPEC_COMPARE MAKE_CONTAINER SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 decoder=$2 compare=$3 make_container=$4 source=$5 scratch=$6
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_spec_decoder: $1" >&2
    failures=$((failures + 1))
}
# agrees FILE WANT: the two readers agree, and spec_compare's line is WANT.
agrees() {
    "$decoder" verify "$1" >verified 2>&1 || fail "$1: $(cat verified)"
    "$compare" "$decoder" "$1" >out 2>&1 || fail "$1: $(cat out)"
    grep -Eq -- "^$2\$" out || fail "$1: \"$(cat out)\", not \"$2\""
}
# refuses PATTERN ARGS...: exit status 1 and one line on stderr that matches.
refuses() {
    pattern=$1
    shift
    "$decoder" "$@" >out 2>err
    [ $? = 1 ] || fail "spec_decoder $*: does not exit with 1"
    [ "$(wc -l <err)" = 1 ] || fail "spec_decoder $*: not one line but: $(cat err)"
    grep -Eq -- "^decoder: $pattern" err || fail "spec_decoder $*: says \"$(cat err)\", not \"$pattern\""
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1

# ---- containers of real models, quantized and not ----
for model in examples/tiny-scout tests/golden/llama4-tiny/scout/model \
    tests/golden/llama4-tiny/scout_base/model tests/golden/llama4-tiny/maverick/model \
    tests/golden/bnb/linear tests/golden/bnb/axolotl tests/golden/bnb/stacked; do
    name=$(echo "$model" | tr / -).scout
    rm -rf model # scout_base is a config for the weights of scout
    mkdir model
    cp "$source/$model"/* model/
    ls model/*.safetensors >log 2>&1 ||
        cp "$source/tests/golden/llama4-tiny/scout/model/model.safetensors" model/
    chmod -R u+w model
    "$convert" model -o "$name" >log 2>&1 || fail "$model: $(cat log)"
    tensors=$("$decoder" list "$name" | grep -c '^tensor')
    agrees "$name" "$tensors of $tensors tensors decoded alike, [1-9][0-9]* files"
    "$decoder" list "$name" | awk -F '\t' '$6 == "nf4"' | grep -q . || fail "$name holds no NF4"
done
"$convert" "$source/examples/tiny-scout" -o raw.scout --keep-bf16 '*' >log 2>&1 || fail "$(cat log)"
agrees raw.scout '133 of 133 tensors decoded alike, 5 files'

# ---- a container in several files is the same one, and no other file passes for a part of it ----
"$convert" "$source/examples/tiny-scout" -o set.scout --max-part-size 2MB >log 2>&1 || fail "$(cat log)"
agrees set-00001-of-00005.scout '133 of 133 tensors decoded alike, 5 files'
"$decoder" list examples-tiny-scout.scout >listed
"$decoder" list set-00001-of-00005.scout | cmp - listed || fail "the set is not the one file"
refuses 'set-00002-of-00005.scout: is file 2 of 5' verify set-00002-of-00005.scout
mv set-00003-of-00005.scout kept
refuses 'set-00003-of-00005.scout: cannot be opened' verify set-00001-of-00005.scout
cp set-00004-of-00005.scout set-00003-of-00005.scout
refuses 'set-00003-of-00005.scout: is file 4 of 5, not file 3' verify set-00001-of-00005.scout
"$convert" "$source/examples/tiny-scout" -o other.scout --max-part-size 2MB --keep-bf16 '*' >log 2>&1
cp other-00003-of-*.scout set-00003-of-00005.scout
refuses 'set-00003-of-00005.scout: (is file 3 of|belongs to another)' verify set-00001-of-00005.scout
cp kept set-00003-of-00005.scout
cp set-00001-of-00005.scout first.scout
refuses 'first.scout: is the first of 5 files' verify first.scout

# ---- carried files are those of the checkpoint ----
for file in config.json tokenizer.json; do
    "$decoder" file examples-tiny-scout.scout $file >carried
    cmp carried "$source/examples/tiny-scout/$file" || fail "$file is not carried byte for byte"
done

# ---- plain scales, odd sizes, scalars, other element types ----
"$make_container" fixture.scout >log 2>&1 || fail "cannot write the fixture"
agrees fixture.scout '[1-9][0-9]* of [1-9][0-9]* tensors decoded alike, [1-9][0-9]* files'

# ---- the worked bytes of the page, read from the page ----
# Rows are written where they belong; what is not shown is zero.
size=$(sed -n 's/^# length //p' "$source/spec/container.md")
dd if=/dev/zero of=worked.scout bs=1 count=0 seek="$size" 2>/dev/null
sed -n 's/^\([0-9a-f]\{6\}\): \([0-9a-f ]*\)|.*$/\1 \2/p' "$source/spec/container.md" >rows
while read -r offset bytes; do
    # shellcheck disable=SC2046,SC2059,SC2086 # the bytes are words, and the format
    printf "$(printf '\\%03o' $(printf '0x%s ' $bytes))" |
        dd of=worked.scout bs=1 seek=$((0x$offset)) conv=notrunc 2>/dev/null
done <rows
agrees worked.scout '2 of 2 tensors decoded alike, 1 files'
first=$("$decoder" tensor worked.scout q | od -An -tx1 -N 8 | tr -d ' ')
[ "$first" = 00008fbf00008f3f ] || fail "q of the worked bytes begins with $first, not BF8F and 3F8F"

# ---- ranges of owners tile the file ----
# shellcheck disable=SC2094 # "owners" is a verb, too
"$decoder" owners fixture.scout >owners
awk -F '\t' '$1 != end { print "gap at " $1; bad = 1 } { end = $2 } END { print end; exit bad }' owners >tiles ||
    fail "owners: $(cat tiles)"
[ "$(tail -n 1 tiles)" = "$(wc -c <fixture.scout | tr -d ' ')" ] || fail "owners end at $(cat tiles)"

# ---- what it refuses ----
refuses 'nothing\.scout: cannot be opened' list nothing.scout
refuses '\.: is not a regular file' list .
refuses 'fixture\.scout: has no tensor x' tensor fixture.scout x
refuses 'fixture\.scout: carries no file x' file fixture.scout x
refuses 'fixture\.scout: has no byte ' owner fixture.scout "$(tail -n 1 tiles)"
head -c 4096 /dev/zero >zeros.scout
refuses 'zeros\.scout: was never finished' verify zeros.scout
head -c 5000 fixture.scout >short.scout
refuses 'short\.scout: header: the size is given as' verify short.scout
printf 'version https://git-lfs.github.com/spec/v1\n' >lfs.scout
refuses 'lfs\.scout: is a Git-LFS pointer' verify lfs.scout
cp fixture.scout damaged.scout
printf '\377' | dd of=damaged.scout bs=1 seek=4096 conv=notrunc 2>/dev/null
refuses 'damaged\.scout: chunk 0 is damaged: tensors	embed\.weight' verify damaged.scout

[ $failures = 0 ] || {
    echo "test_spec_decoder: $failures failures" >&2
    exit 1
}
echo "test_spec_decoder: all agree"
