#!/bin/sh
# Flipping any one byte of a container is always refused with the right name. What the right name
# is comes from spec_decoder, the reader that was written from spec/ alone.
#   test_damage.sh SCOUT_CONVERT SPEC_DECODER SPEC_DAMAGE MAKE_CONTAINER SCOUT_INSPECT SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 decoder=$2 damage=$3 make_container=$4 inspect=$5 source=$6 scratch=$7
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_damage: $1" >&2
    failures=$((failures + 1))
}
# noticed HOW FILE LINES: spec_damage is content, and says so in that many lines.
noticed() {
    "$damage" "$1" "$decoder" "$inspect" "$2" >out 2>err || fail "$1 $2: $(tail -n 1 err)"
    sed "s/^/$2: /" out
    [ "$(wc -l <out | tr -d ' ')" = "$3" ] || fail "$1 $2: not $3 lines"
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/tests/golden/llama4-tiny/maverick/model" -o small.scout >log 2>&1 || fail "$(cat log)"
"$convert" "$source/examples/tiny-scout" -o tiny.scout >log 2>&1 || fail "$(cat log)"
"$make_container" fixture.scout >log 2>&1 || fail "$(cat log)"
cp tiny.scout before.scout

noticed all small.scout 4
noticed sample tiny.scout 6
noticed sample fixture.scout 6
cmp tiny.scout before.scout || fail "tiny.scout itself was changed"

[ $failures = 0 ] || {
    echo "test_damage: $failures failures" >&2
    exit 1
}
echo "test_damage: every damage was named"
