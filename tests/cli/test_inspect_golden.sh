#!/bin/sh
# What scout-inspect prints, word for word, and the schema of its JSON, key by key.
#   test_inspect_golden.sh SCOUT_CONVERT SCOUT_INSPECT JSON_SHAPE SOURCE_DIR SCRATCH_DIR
# SCOUT_GOLDEN_UPDATE=1 writes tests/golden/inspect anew: look at the difference before committing it.
set -u
convert=$1 inspect=$2 shape=$3 source=$4 scratch=$5
golden=$source/tests/golden/inspect
LC_ALL=C
export LC_ALL
unset COLUMNS
failures=0
fail() {
    echo "test_inspect_golden: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o tiny.scout --model-id example/tiny >log 2>&1 &&
    "$convert" "$source/examples/tiny-scout" -o kept.scout --model-id example/tiny --keep-bf16 '*o_proj*' >log 2>&1 || {
    cat log >&2
    exit 1
}
# Two chunks of layer 0 damaged: one of an expert, one of the dense part.
cp tiny.scout bad.scout
printf '\252' | dd of=bad.scout bs=1 seek=5096 conv=notrunc 2>/dev/null
printf '\252' | dd of=bad.scout bs=1 seek=370000 conv=notrunc 2>/dev/null

# zstd's versions give metadata of different length: that, and what is made of it, is left open; so
# are rates and the version of the program.
mask() {
    sed -E -e 's/^(  file +).*/\1N/' -e 's/^(  rest of the file +).*( header)/\1N \2/' \
        -e 's/^( *[0-9,]+) +[0-9,]+ +[0-9.]+ kB(  checksums, index, metadata)/\1 N\2/' \
        -e 's/\([0-9.]+ s, [0-9.]+ .B\/s\)/(RATE)/' -e 's/scout-convert [0-9][^ ]*/scout-convert V/' \
        -e 's/(identity +)[0-9a-f]{32}/\1H/'
}
compare() {
    if [ "${SCOUT_GOLDEN_UPDATE:-}" = 1 ]; then
        cp "$1" "$golden/$1"
    elif ! diff "$golden/$1" "$1" >difference; then
        fail "$1 is not what tests/golden/inspect has:"
        head -20 difference >&2
    fi
}
# text NAME ARGS...: stdout and stderr, and the exit status.
text() {
    name=$1
    shift
    "$inspect" "$@" >out 2>err
    status=$?
    { cat out err && echo "exit $status"; } | mask >"$name.txt"
    compare "$name.txt"
}
# schema NAME ARGS...: paths and types; every key stands in spec/inspect-json.md.
schema() {
    name=$1
    shift
    "$inspect" "$@" >out 2>err
    "$shape" out >"$name.shape" || fail "$name: no JSON"
    compare "$name.shape"
    for key in $(sed -E 's/ .*//; s/\[\]//g; s/.*\.//' "$name.shape" | grep -v '^\*$' | sort -u); do
        grep -Eq "\`$key(\[\])?\`|\`$key: " "$source/spec/inspect-json.md" || fail "$name: spec/inspect-json.md does not tell of $key"
    done
}

text summary tiny.scout
text tensors tensors tiny.scout --layer 1
text tree tensors tiny.scout --tree --layer 0
text layout layout tiny.scout
text experts experts tiny.scout
text norms experts tiny.scout --norm
text files files tiny.scout
text provenance provenance tiny.scout
text tokenizer tokenizer tiny.scout --encode 'Call me Ishmael.' --special
text verify verify tiny.scout
text damage verify bad.scout
text diff diff tiny.scout kept.scout
text usage tensors

schema summary tiny.scout --json
schema tensors tensors tiny.scout --json
schema layout layout tiny.scout --json
schema experts experts tiny.scout --json
schema norms experts tiny.scout --norm --json
schema files files tiny.scout --json
schema provenance provenance tiny.scout --json
schema tokenizer tokenizer tiny.scout --json --id 1 --id 200
schema verify verify bad.scout --json
schema against verify kept.scout --against "$source/tests/golden/llama4-tiny/scout/model" --json
schema diff diff tiny.scout kept.scout --json
schema plan plan tiny.scout --card h100-80 --card 1000 --json

# The terminal's width: a pipe gets every column in full, a terminal none of the lines longer than it.
if command -v script >/dev/null 2>&1 && script -qec true /dev/null >/dev/null 2>&1; then
    for width in 60 80 120; do
        script -qec "env COLUMNS=$width '$inspect' tensors tiny.scout" /dev/null | tr -d '\r' >wide
        longest=$(awk '{ if (length($0) > n) n = length($0) } END { print n + 0 }' wide)
        { [ "$longest" -gt 40 ] && [ "$longest" -le $width ]; } || fail "on a terminal of $width a line has $longest"
    done
fi
[ "$failures" = 0 ] || exit 1
echo "test_inspect_golden: all checks passed"
