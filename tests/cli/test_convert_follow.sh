#!/bin/sh
# scout-convert --follow and --delete-source: shards are taken as they come, only when something
# proves that they are whole, and deleted only when they are done. Slow downloaders run beside it.
#   test_convert_follow.sh SCOUT_CONVERT SYNTH SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 synth=$2 source=$3 scratch=$4
tiny=$source/examples/tiny-scout
LC_ALL=C
export LC_ALL
first=model-00001-of-00002.safetensors
second=model-00002-of-00002.safetensors

failures=0
fail() {
    echo "test_convert_follow: $1" >&2
    failures=$((failures + 1))
}

# begin NAME: a folder with all but the shards.
begin() {
    rm -rf "$1" "$1.scout" "$1.scout.partial" "$1.scout.journal"
    mkdir "$1"
    cp "$tiny"/*.json "$tiny"/*.jinja "$1"
    chmod -R u+w "$1"
}
# follow NAME ARGS...: in the background, $follower is its process.
follow() {
    name=$1
    shift
    "$convert" "$name" -o "$name.scout" --model-id tiny --follow "$@" >"$name.out" 2>"$name.err" &
    follower=$!
}
# waits_for NAME PATTERN: until it has said so.
waits_for() {
    for i in $(seq 300); do
        grep -Eqs -- "$2" "$1.err" && return
        kill -0 "$follower" 2>/dev/null || break
        sleep 0.1
    done
    fail "$1 never said '$2' but: $(cat "$1.err")"
}
ends_as() { # ends_as NAME STATUS
    wait "$follower"
    got=$?
    [ "$got" = "$2" ] || fail "$1: exit status $got, not $2: $(cat "$1.err")"
    [ "$2" != 0 ] || cmp -s whole.scout "$1.scout" || fail "$1: another file than from a whole checkpoint"
    [ "$2" != 0 ] || [ ! -e "$1.scout.partial" ] || fail "$1: a partial file was left"
}
# download FROM TO: as the hub's client does, slowly: under another name, then renamed.
download() {
    mkdir -p "${2%/*}/.cache/huggingface/download"
    part=${2%/*}/.cache/huggingface/download/abc.incomplete
    : >"$part"
    for k in 0 1 2 3; do
        dd if="$1" of="$part" bs=1600000 skip=$k seek=$k count=1 conv=notrunc 2>/dev/null
        sleep 0.2
    done
    mv "$part" "$2"
}
sum() { sha256sum "$1" | cut -c 1-64; }

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$tiny" -o whole.scout --model-id tiny >out 2>err || fail "tiny-scout does not convert: $(cat err)"

# ---- renamed into place; .incomplete files are left alone ----
begin renamed
echo unfinished >renamed/$first.incomplete
echo unfinished >renamed/other.safetensors.incomplete
touch -d '2020-01-01' renamed/*.incomplete
follow renamed
waits_for renamed 'waiting for model-00001.*not there yet \(and 1 more\)'
download "$tiny/$second" renamed/$second
waits_for renamed 'waiting for model-00001.*not there yet$'
download "$tiny/$first" renamed/$first
ends_as renamed 0
[ "$(cat renamed/$first.incomplete renamed/other.safetensors.incomplete)" = "unfinished
unfinished" ] || fail "an .incomplete file was touched"
[ "$(find renamed -name '*.incomplete' -newermt 2020-01-02)" = "" ] || fail "an .incomplete file was touched"

# ---- even the small files may be late, and in pieces ----
begin late
mv late/model.safetensors.index.json late/tokenizer.json .
head -c 1000 late/config.json >cut.json
mv late/config.json .
mv cut.json late/config.json
follow late
waits_for late 'waiting for config.json'
cat config.json >late/config.json
waits_for late 'waiting for model.safetensors.index.json'
head -c 100 model.safetensors.index.json >late/model.safetensors.index.json
sleep 0.3
cat model.safetensors.index.json >late/model.safetensors.index.json
waits_for late 'waiting for model-00001'
head -c 50000 tokenizer.json >late/tokenizer.json
download "$tiny/$first" late/$first
download "$tiny/$second" late/$second
waits_for late 'waiting for tokenizer.json: not whole'
cat tokenizer.json >late/tokenizer.json
ends_as late 0

# ---- the right size proves nothing; .done does ----
begin marked
truncate -s "$(stat -c %s "$tiny/$first")" marked/$first
cp "$tiny/$second" marked/$second
follow marked
waits_for marked 'model-00001.*there, but nothing proves that it is whole \(and 1 more\)'
touch marked/$second.done
waits_for marked 'model-00001.*there, but nothing proves that it is whole$'
dd if="$tiny/$first" of=marked/$first conv=notrunc 2>/dev/null
sleep 1.2
kill -0 "$follower" || fail "a file that nothing speaks for was taken"
touch marked/$first.done
ends_as marked 0
[ -e marked/$first ] && [ -e marked/$second ] || fail "a shard was deleted unasked"

# ---- a list of hashes: right by and by, wrong, and without --follow ----
begin listed
(cd "$tiny" && sha256sum "$first" "$second") >sums
cp "$tiny/$second" listed/
head -c 6000000 /dev/zero >listed/$first
touch -d '-1 minute' listed/*.safetensors
follow listed --sha256 sums
waits_for listed 'model-00001.*its SHA-256 is not'
cat "$tiny/$first" >listed/$first
ends_as listed 0
begin wrong
cp "$tiny/$second" wrong/
printf 'X' | dd of=wrong/$second bs=1 seek=3000000 conv=notrunc 2>/dev/null
touch wrong/$second.done
follow wrong --sha256 sums
ends_as wrong 1
grep -q "$second: its SHA-256 is [0-9a-f]*, sums says $(sum "$tiny/$second")" wrong.err || fail "wrong: $(cat wrong.err)"
cp "$tiny/$first" wrong/
"$convert" wrong -o wrong.scout --sha256 sums >out 2>err && fail "a wrong hash was taken without --follow"
grep -q "its SHA-256 is" err || fail "a wrong hash: $(cat err)"
cp "$tiny/$second" wrong/
"$convert" wrong -o wrong.scout --model-id tiny --sha256 sums >out 2>err || fail "right hashes: $(cat err)"
cmp -s whole.scout wrong.scout || fail "--sha256 changed the file"
echo "not a hash  $first" >sums.bad
"$convert" wrong -o wrong.scout --sha256 sums.bad >out 2>err && fail "a list without hashes was taken"
grep -q 'sums.bad: line 1 is not a SHA-256' err || fail "a bad list: $(cat err)"

# ---- the hub's own words: metadata beside a local folder, names of blobs in its cache ----
begin hub
mkdir -p hub/.cache/huggingface/download
for s in $first $second; do
    printf 'commit\n%s\n1.0\n' "$(sum "$tiny/$s")" >hub/.cache/huggingface/download/$s.metadata
    cp "$tiny/$s" hub/
done
truncate -s 3000000 hub/$second # an older download's metadata beside a file that is being written
truncate -s "$(stat -c %s "$tiny/$second")" hub/$second
touch -d '-1 minute' hub/*.safetensors
follow hub
waits_for hub 'model-00002.*its SHA-256 is not'
cat "$tiny/$second" >hub/$second
ends_as hub 0

rm -rf cache
mkdir -p cache/blobs cache/snapshots/abc
cp "$tiny"/*.json "$tiny"/*.jinja cache/snapshots/abc
ln -s cache/snapshots/abc cached
for s in $first $second; do
    cp "$tiny/$s" "cache/blobs/$(sum "$tiny/$s")"
    touch -d '-1 minute' "cache/blobs/$(sum "$tiny/$s")"
    ln -s "../../blobs/$(sum "$tiny/$s")" cached/$s
done
follow cached --delete-source
ends_as cached 0
[ "$(find -L cached -name '*.safetensors')" = "" ] || fail "a link was left in the cache"
[ "$(find cache/blobs -type f | wc -l)" = 2 ] || fail "a blob was deleted unasked"
grep -q "$first is a link to .*blobs/$(sum "$tiny/$first"), which stays" cached.out || fail "the blob is not named: $(cat cached.out)"
for s in $first $second; do ln -s "../../blobs/$(sum "$tiny/$s")" cached/$s; done
rm cached.scout
follow cached --delete-source --delete-blobs
ends_as cached 0
[ "$(find cache/blobs -type f)" = "" ] || fail "a blob was left"
grep -q "deleted .*blobs/$(sum "$tiny/$first")" cached.out || fail "the blob is not named: $(cat cached.out)"

# ---- deleting, stopping and going on with what is gone ----
begin gone
follow gone --delete-source
waits_for gone 'waiting for model-00001'
download "$tiny/$first" gone/$first
waits_for gone 'waiting for model-00002'
kill -INT "$follower"
ends_as gone 1
grep -q 'interrupted while waiting' gone.err || fail "gone: $(cat gone.err)"
[ ! -e gone.scout ] || fail "half a conversion looks finished"
ls gone >before
follow gone --delete-source # what has been taken for whole once needs no other proof
waits_for gone 'waiting for model-00002'
kill -KILL "$follower"
wait "$follower" 2>/dev/null
follow gone --delete-source
waits_for gone 'waiting for model-00002'
download "$tiny/$second" gone/$second
ends_as gone 0
[ "$(find gone -name '*.safetensors')" = "" ] || fail "shards were left: $(ls gone)"
[ "$(grep -c '^deleted gone/model-0000[12]-of-00002.safetensors ([0-9.]* MB)' gone.out)" -ge 1 ] || fail "not said what was deleted: $(cat gone.out)"

# One shard at a time is all that ever lies there, in any order, whatever interrupts.
small='--layers 5 --hidden 256 --width 512 --heads 4 --kv-heads 2 --head-size 64 --experts 4 --vocabulary 2000'
"$synth" model $small >out 2>err && "$convert" model -o whole-model.scout --model-id tiny >out 2>err || fail "synth: $(cat err)"
rm -rf model && mkdir model
"$synth" model $small --only 6 >out 2>err
touch model/model-00006-of-00006.safetensors.done
follow model --delete-source
kills=0
for n in 6 2 4 1 5 3; do
    shard=model/model-0000$n-of-00006.safetensors
    [ "$n" = 6 ] || "$synth" model $small --only "$n" >out 2>err || fail "synth: $(cat err)"
    if [ "$n" = 4 ] || [ "$n" = 5 ]; then
        kill -KILL "$follower" && wait "$follower" 2>/dev/null
        kills=$((kills + 1))
        [ ! -e "$shard" ] || touch "$shard.done" # nobody saw it being renamed
        follow model --delete-source
    fi
    for i in $(seq 200); do
        [ -e "$shard" ] || break
        sleep 0.1
    done
    [ ! -e "$shard" ] && continue
    fail "shard $n was not deleted: $(cat model.err)"
    break
done
[ "$failures" = 0 ] || kill "$follower"
wait "$follower" || fail "one shard at a time: $(cat model.err)"
cmp whole-model.scout model.scout || fail "one shard at a time gives another file"

"$convert" model -o model.scout --model-id tiny --follow --delete-source >out 2>err || fail "finished already: $(cat err)"
grep -q 'model.scout: is finished already' out || fail "finished already: $(cat out)"

# To begin anew without what is gone would lose it.
"$synth" model $small --only 2 >out 2>err
rm model.scout
follow model --delete-source
for i in $(seq 200); do
    [ -e model/model-00002-of-00006.safetensors ] || break
    [ "$i" != 20 ] || touch model/model-00002-of-00006.safetensors.done
    sleep 0.1
done
kill "$follower"
wait "$follower"
"$convert" model -o model.scout --follow --restart >out 2>err && fail "--restart forgot a shard that is gone"
grep -q 'model-00002-of-00006.safetensors is gone, and --restart would lose' err || fail "--restart: $(cat err)"
[ -e model.scout.partial ] && [ -s model.scout.journal ] || fail "--restart deleted what it refused to lose"

# Deleting without --follow, too. What could not be deleted is said, and nothing is lost.
begin plain
cp "$tiny/$first" "$tiny/$second" plain
"$convert" plain -o plain.scout --model-id tiny --delete-source >out 2>err || fail "--delete-source alone: $(cat err)"
cmp -s whole.scout plain.scout || fail "--delete-source changed the file"
[ "$(grep -c '^deleted' out)" = 2 ] && [ "$(find plain -name '*.safetensors')" = "" ] || fail "--delete-source: $(cat out)"

# ---- what makes no sense ----
refused() { # refused STATUS PATTERN ARGS...
    want=$1 pattern=$2
    shift 2
    "$convert" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] && grep -Eq -- "$pattern" err || fail "scout-convert $*: $got, $(cat err)"
}
refused 2 'dry-run goes with neither' "$tiny" --dry-run --follow
refused 2 'give both' "$tiny" -o x.scout --delete-blobs
refused 1 'no-such-list: cannot open' "$tiny" -o x.scout --sha256 no-such-list

# A shard of another type than all addresses were reckoned with is refused, by name.
begin mixed
sed -i 's/"dtype": "bfloat16"/"dtype": "float16"/; s/"torch_dtype": "bfloat16"/"torch_dtype": "float16"/' mixed/config.json
cp "$tiny/$first" mixed
touch mixed/$first.done
follow mixed
waits_for mixed 'waiting for model-00002'
cp "$tiny/$second" mixed
touch mixed/$second.done
wait "$follower"
[ $? = 1 ] || fail "another dtype than the config's: not refused"
grep -q 'is bf16, not the f16 by which its place was reckoned' mixed.err || fail "mixed: $(cat mixed.err)"

cd / && rm -rf "$scratch"
[ "$failures" = 0 ] && echo "test_convert_follow: all as expected"
exit $((failures > 0))
