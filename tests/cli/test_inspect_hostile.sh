#!/bin/sh
# scout-inspect on what is not as it should be: torn pages, swapped experts, cut tails are found and named, nothing else is accused; no
# escape sequence of a name gets out of any view.
#   test_inspect_hostile.sh SCOUT_CONVERT SCOUT_INSPECT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 get=$3 source=$4 scratch=$5
failures=0
fail() {
    echo "test_inspect_hostile: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o good.scout >log 2>&1 || {
    cat log >&2
    exit 1
}
"$inspect" layout good.scout --json >layout.json || fail "no layout"
where() { # where LAYER EXPERT: offset and bytes of that expert's extent
    echo "$("$get" layout.json "extents[$(index "$1" "$2")].offset") $("$get" layout.json "extents[$(index "$1" "$2")].bytes")"
}
index() { # extents are by layer: its dense part, then its experts; tiny-scout has four
    echo $(($1 * 5 + 1 + $2))
}
# accused LAYER: how many damaged chunks lie in that layer's experts; then in all
accused() {
    n=$("$get" out.json damaged_chunks) i=0 hits=0
    while [ "$i" -lt "$n" ]; do
        place="$("$get" out.json "damage[$i].layer") $("$get" out.json "damage[$i].expert")"
        case " $* " in *" ${place% *}.${place#* } "*) hits=$((hits + 1)) ;; esac
        i=$((i + 1))
    done
    echo "$hits of $n"
}
check() { # check WHAT FILE LAYER.EXPERT...: damaged there, and nowhere else
    what=$1 file=$2
    shift 2
    "$inspect" verify "$file" --json >out.json 2>err
    [ $? = 1 ] || fail "$what: verify does not exit with 1"
    n=$("$get" out.json damaged_chunks)
    [ "${n:-0}" -gt 0 ] || fail "$what: nothing is found"
    [ "$(accused "$@")" = "$n of $n" ] || fail "$what: $(accused "$@") damaged chunks are in $*"
}
[ "$("$get" layout.json "extents[$(index 2 1)].layer") $("$get" layout.json "extents[$(index 2 1)].expert")" = "2 1" ] || fail "layer 2 expert 1 is not extent $(index 2 1)"

# ---- pages ----
for place in "0 0" "1 3" "3 2"; do
    # shellcheck disable=SC2086 # two numbers
    set -- $place $(where $place)
    cp good.scout bad.scout
    tr '\000' '\377' </dev/zero | dd of=bad.scout bs=1 seek=$((($3 + $4 / 2) / 4096 * 4096)) count=4096 conv=notrunc 2>/dev/null
    check "a page of layer $1 expert $2" bad.scout "$1.$2"
done

# ---- two experts in each other's place ----
set -- $(where 1 0) $(where 1 1)
[ "$2" = "$4" ] || fail "two experts differ in size"
cp good.scout bad.scout
dd if=good.scout of=bad.scout bs=1 skip="$1" seek="$3" count="$2" conv=notrunc 2>/dev/null
dd if=good.scout of=bad.scout bs=1 skip="$3" seek="$1" count="$2" conv=notrunc 2>/dev/null
check "experts 0 and 1 of layer 1 swapped" bad.scout 1.0 1.1
both=$("$get" out.json damaged_chunks)
tensors=$(grep -c 'experts\.[01]\.' out.json)
[ "$tensors" -ge 6 ] || fail "$both damaged chunks name $tensors tensors of two experts of three"

# ---- tails ----
size=$(wc -c <good.scout | tr -d ' ')
for left in $((size - 1)) $((size - 4096)) $((size * 2 / 3)) 100; do
    head -c "$left" good.scout >bad.scout
    "$inspect" verify bad.scout >out 2>err && fail "a tail is gone, and verify is content with $left of $size bytes"
    [ "$(grep -c '^scout-inspect: ' err)" = 1 ] || fail "$left of $size bytes: not one sentence but: $(cat err)"
done

# ---- names ----
name="$(printf 'x\033[31mred\007\nline')"
cp good.scout "$name.scout"
cp bad.scout "bad $name.scout"
cp -r "$source/examples/tiny-scout" "hf $name"
no_escape() { # no_escape ARGS...: whatever it says
    "$inspect" "$@" >out 2>err
    if LC_ALL=C grep -q "$(printf '[\033\007]')" out err; then
        fail "an escape sequence gets out of: scout-inspect $1"
    fi
}
for view in summary tensors layout experts config files provenance tokenizer verify; do
    no_escape "$view" "$name.scout"
    no_escape "$view" "bad $name.scout"
done
for view in summary tensors layout experts files provenance tokenizer verify; do
    no_escape "$view" "$name.scout" --json
done
no_escape diff "$name.scout" "bad $name.scout"
no_escape diff "$name.scout" "hf $name"
no_escape verify "$name.scout" --against "hf $name"
no_escape extract "$name.scout" '*router*' -o "$name.safetensors"
no_escape file "$name.scout" "$name"
no_escape plan "$name.scout" --card h100-80 --max-seq-length 64
no_escape report "$name.scout" -o page.html
LC_ALL=C grep -q "$(printf '[\033\007]')" page.html && fail "an escape sequence stands in the report"
[ "$failures" = 0 ] || exit 1
echo "test_inspect_hostile: all checks passed"
