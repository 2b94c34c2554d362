#!/bin/sh
# scout-convert as a user runs it: what it writes, and that every bad input gets one sentence, exit
# status 1 (2 for a wrong command line), and leaves nothing behind.
#   test_scout_convert.sh SCOUT_CONVERT SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 source=$2 scratch=$3
tiny=$source/examples/tiny-scout
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_scout_convert: $1" >&2
    failures=$((failures + 1))
}

# refused STATUS PATTERN ARGS...: that exit status, one line on stderr that matches, nothing at
# $scratch/out.scout nor any partial file beside it.
refused() {
    want=$1 pattern=$2
    shift 2
    "$convert" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "scout-convert $*: exit status $got, not $want"
    [ "$(wc -l <err)" = 1 ] || fail "scout-convert $*: not one line but: $(cat err)"
    grep -Eq -- "^scout-convert: .*$pattern" err || fail "scout-convert $*: says $(cat err), not $pattern"
    left=$(find "$scratch/to" -name '*.scout*' | head -n 1)
    [ -z "$left" ] || fail "scout-convert $*: left $left behind"
}

# fresh NAME: a copy of tiny-scout to break.
fresh() {
    rm -rf "${scratch:?}/$1"
    cp -r "$tiny" "$scratch/$1"
    chmod -R u+w "$scratch/$1"
}
edit_config() { # edit_config NAME SED_SCRIPT
    fresh "$1"
    sed -i "$2" "$scratch/$1/config.json"
}

rm -rf "$scratch"
mkdir -p "$scratch/to"
cd "$scratch" || exit 1
first=model-00001-of-00002.safetensors

# ---- what works ----
"$convert" "$tiny" -o good.scout >out 2>err || fail "tiny-scout does not convert: $(cat err)"
[ -s good.scout ] || fail "no container was written"
grep -Eq '^expert_down +16 .* [0-9.]+ % +20\.[0-9]+ +[0-9.]+ % +[0-9.]+ % .*down_proj.weight' out || fail "no table of errors: $(cat out)"
grep -Eq '^total ' out || fail "no total of errors: $(cat out)"
"$convert" "$tiny" -o table.scout --table --report report.json >out 2>err || fail "--table --report: $(cat err)"
cmp -s good.scout table.scout || fail "a report changed the container"
[ "$(grep -c ' nf4 .* %' out)" = 76 ] || fail "--table does not list 76 NF4 tensors: $(cat out)"
for key in '"seconds": [0-9]' '"source_bytes_per_second": [0-9]' '"snr_db": 20' '"nan_or_inf": 0' '"worst_block": {' '"row": [0-9]'; do
    grep -q "$key" report.json || fail "report.json has no $key"
done
[ "$(grep -c '"relative_rms_error"' report.json)" = $((2 * 76 + 2)) ] || fail "report.json does not tell of 76 tensors and the total"
"$convert" "$tiny" -o table.scout --report no-such-place/r.json >out 2>err && fail "a report that cannot be written went unnoticed"
grep -q 'the container is finished, but the report is not: no-such-place' err || fail "no-such-place: $(cat err)"
"$convert" "$tiny" --output=again.scout --threads 2 >out 2>err || fail "--output= and --threads: $(cat err)"
cmp -s good.scout again.scout || fail "two conversions differ"
"$convert" "$tiny" --dry-run >out 2>err || fail "--dry-run: $(cat err)"
[ "$(grep -c 'nf4 ' out)" = 76 ] || fail "--dry-run does not list 76 NF4 tensors"
grep -q '^layer 3 expert 3 expert_down .*\[256, 256\]' out || fail "--dry-run has no row for the last expert"
"$convert" "$tiny" -o kept.scout --keep-bf16 '*' >out 2>err || fail "--keep-bf16 '*': $(cat err)"
"$convert" --help >out 2>err || fail "--help"
grep -q -- '--keep-bf16' out || fail "--help does not list options"
[ "$(find . -name '*partial*' | wc -l)" = 0 ] || fail "a partial file was left"

# ---- scales by search ----
"$convert" "$tiny" -o absmax.scout --scale absmax >out 2>err || fail "--scale absmax: $(cat err)"
cmp -s good.scout absmax.scout || fail "--scale absmax is not the default"
for how in search search-signed; do
    "$convert" "$tiny" -o $how.scout --scale $how >out 2>err || fail "--scale $how: $(cat err)"
    cmp -s good.scout $how.scout && fail "--scale $how changed nothing"
    SCOUT_NF4=portable "$convert" "$tiny" -o again.scout --scale $how --threads 1 >out 2>err || fail "portable $how: $(cat err)"
    cmp -s $how.scout again.scout || fail "--scale $how depends on threads or instructions"
    grep -qa "scale=$how" $how.scout || fail "the container does not tell of --scale $how"
done
refused 2 'absmax, search or search-signed, not best' "$tiny" -o to/x.scout --scale best
refused 2 'give both' "$tiny" -o to/x.scout --importance good.scout
refused 1 'good.scout' "$tiny" -o to/x.scout --scale search --importance good.scout
SCOUT_NF4=abacus
export SCOUT_NF4
refused 1 'SCOUT_NF4=abacus: this processor has .*portable' "$tiny" -o to/x.scout
unset SCOUT_NF4

# ---- and back ----
"$convert" export kept.scout --to hf-bf16 -o back >out 2>err || fail "export: $(cat err)"
cmp -s back/config.json "$tiny/config.json" || fail "export changed config.json"
cmp -s back/tokenizer.json "$tiny/tokenizer.json" || fail "export changed tokenizer.json"
"$convert" back -o kept-again.scout --keep-bf16 '*' --model-id tiny-scout >out 2>err || fail "an exported folder does not convert: $(cat err)"
"$convert" back --dry-run >again 2>err && "$convert" "$tiny" --dry-run >first 2>err
cmp -s again first || fail "an exported folder is another model"
refused 1 'back: holds a checkpoint already' export kept.scout --to hf-bf16 -o back
refused 2 'hf-bf16 or hf-bnb4' export kept.scout --to gguf -o to/gguf
refused 1 'no-such.scout' export no-such.scout --to hf-bf16 -o to/none
cp good.scout damaged.scout
printf 'X' | dd of=damaged.scout bs=1 seek=100000 conv=notrunc 2>/dev/null
refused 1 'damaged.scout.*chunk' export damaged.scout --to hf-bf16 -o to/none

# ---- the command line ----
refused 2 'give one checkpoint folder'
refused 2 'with -o FILE' "$tiny"
refused 2 'did you mean --keep-bf16' "$tiny" -o to/x.scout --keep-bf6 '*'
refused 2 'takes a whole number' "$tiny" -o to/x.scout --threads many
refused 2 '1 to 1024' "$tiny" -o to/x.scout --threads 0
refused 2 'needs a value' "$tiny" -o
refused 2 'with -o FILE' "$tiny" -o ''
refused 1 'matches no matrix' "$tiny" -o to/x.scout --keep-bf16 '*nothing*'

# ---- names of all kinds ----
odd=$(printf 'a b\nc \377')
fresh "$odd"
refused 1 'model id .* give one with --model-id' "$odd" -o to/x.scout
"$convert" "$odd/" -o "$odd.scout" --model-id tiny-scout >out 2>err || fail "an odd name: $(cat err)"
cmp -s good.scout "$odd.scout" || fail "a folder's name changed the file"
ln -s "$tiny" link
"$convert" link -o ./linked.scout >out 2>err || fail "a linked folder: $(cat err)"
cmp -s good.scout linked.scout || fail "a linked folder changed the file"

# ---- closed standard files: nothing that is printed may land in the container ----
"$convert" "$tiny" -o quiet.scout <&- >&- 2>&-
[ $? = 1 ] || fail "a closed stdout went unnoticed"
cmp -s good.scout quiet.scout || fail "closed standard files changed the container"
"$convert" --version >out 2>err || fail "--version: $(cat err)"
grep -q '^scout-convert [0-9]' out || fail "--version: $(cat out)"

# ---- the checkpoint ----
refused 1 'no-such-folder' no-such-folder -o to/x.scout
refused 1 'not a directory' good.scout -o to/x.scout
mkdir empty
refused 1 'empty/config.json: cannot open' empty -o to/x.scout

fresh cut
head -c 5000000 "$tiny/$first" >"cut/$first"
refused 1 "$first: .*outside the .* bytes of data" cut -o to/x.scout
fresh missing
rm "missing/$first"
refused 1 "shard 1 of 2 is missing: .*$first" missing -o to/x.scout
fresh lfs
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6007256\n' >"lfs/$first"
refused 1 "$first: a Git LFS pointer" lfs -o to/x.scout
fresh noshards
rm noshards/*.safetensors noshards/model.safetensors.index.json
refused 1 'holds neither model.safetensors.index.json nor model.safetensors' noshards -o to/x.scout
fresh elsewhere
sed -i "s/\"$first\"/\"..\/tiny\/$first\"/" elsewhere/model.safetensors.index.json
refused 1 'no plain file name' elsewhere -o to/x.scout
fresh ghost
sed -i 's/"language_model.lm_head.weight"/"language_model.lm_tail.weight"/' ghost/model.safetensors.index.json
refused 1 'lm_tail.weight is said to be in' ghost -o to/x.scout
fresh dtype
sed -i 's/"lm_head.weight":{"dtype":"BF16"/"lm_head.weight":{"dtype":"XX16"/' dtype/model-00002-of-00002.safetensors
sed -i 's/lm_head.weight":{"dtype":"BF16"/lm_head.weight":{"dtype":"XX16"/' dtype/model-00002-of-00002.safetensors
refused 1 'lm_head.weight: unknown dtype "XX16"' dtype -o to/x.scout

# ---- the config ----
edit_config arch 's/"model_type": "llama4",/"model_type": "mistral",/'
refused 1 'arch/config.json: model_type is "mistral"' arch -o to/x.scout
edit_config shape 's/"num_key_value_heads": 2/"num_key_value_heads": 4/'
refused 1 'k_proj.weight: shape \[128, 256\], the config asks for \[256, 256\]' shape -o to/x.scout
edit_config layers 's/"num_hidden_layers": 4/"num_hidden_layers": 5/'
refused 1 'no_rope_layers has 4 entries for 5 layers|layer_types has 4 entries' layers -o to/x.scout
edit_config broken 's/"hidden_size": 256,/"hidden_size": 256,,/'
refused 1 'broken/config.json: malformed JSON' broken -o to/x.scout
edit_config dense 's/"moe_layers": \[/"moe_layers": [],"was": [/'
refused 1 'the config describes no such weight' dense -o to/x.scout

# ---- the output ----
refused 1 'no-such-place' "$tiny" -o no-such-place/x.scout
refused 1 'is a directory' "$tiny" -o to
if [ "$(id -u)" = 0 ] && mkdir small && mount -t tmpfs -o size=1m tmpfs small 2>/dev/null; then
    "$convert" "$tiny" -o small/x.scout >out 2>err && fail "a full disk went unnoticed"
    grep -q 'No space left' err || fail "a full disk: $(cat err)"
    [ -z "$(ls -A small)" ] || fail "a full disk: $(ls small) was left"
    umount small
fi
(
    ulimit -f 2000 # KiB or half KiB, either way less than the container
    "$convert" "$tiny" -o to/x.scout >out 2>err
) && fail "a file size limit went unnoticed"
grep -q 'File too large' err || fail "a file size limit: $(cat err)"
if [ "$(id -u)" != 0 ]; then
    mkdir locked && chmod a-w locked
    refused 1 'locked.*Permission denied' "$tiny" -o locked/x.scout
fi
"$convert" "$tiny" --dry-run >/dev/full 2>err && fail "a full stdout went unnoticed"
grep -q 'cannot write to stdout' err || fail "a full stdout: $(cat err)"
"$convert" "$tiny" --dry-run 2>err | head -n 1 >/dev/null
[ -s err ] && fail "a reader that went away: $(cat err)"

# What stood at the target stays when a conversion fails.
cp good.scout kept-before.scout
"$convert" cut -o kept-before.scout >out 2>err && fail "a cut shard went unnoticed"
cmp -s good.scout kept-before.scout || fail "a failed conversion touched what stood there"

cd / && rm -rf "$scratch"
[ "$failures" = 0 ] && echo "test_scout_convert: all as expected"
exit $((failures > 0))
