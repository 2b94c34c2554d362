#!/bin/sh
# scout-inspect on a converted tiny-scout: what it prints, and that it names every damage.
#   test_scout_inspect.sh SCOUT_CONVERT SCOUT_INSPECT JSON_GET SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 json_get=$3 source=$4 scratch=$5
LC_ALL=C
export LC_ALL
unset COLUMNS

failures=0
fail() {
    echo "test_scout_inspect: $1" >&2
    failures=$((failures + 1))
}
# has FILE PATTERN: an extended regular expression that some line must match.
has() {
    grep -Eq -- "$2" "$1" || {
        fail "$1 has no line like: $2"
        sed 's/^/    /' "$1" >&2
    }
}
# same WHAT GOT WANT
same() {
    [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}
# runs STATUS ARGS...: stdout and stderr go to out and err; the exit status is exactly STATUS.
runs() {
    want=$1
    shift
    "$inspect" "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || {
        fail "scout-inspect $*: exit status $got, not $want"
        cat err >&2
    }
}
get() {
    "$json_get" "$@" || fail "json_get $*"
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o good.scout --model-id example/tiny >log 2>&1 || {
    cat log >&2
    echo "test_scout_inspect: conversion failed" >&2
    exit 1
}
size=$(wc -c <good.scout | tr -d ' ')

# ---- summary ----
runs 0 good.scout
cp out summary
has out '^good\.scout: scout container 1\.0$'
has out '^  model +example/tiny$'
has out '^  architecture +Llama4ForConditionalGeneration \(llama4\)$'
has out '^  shape +4 layers, hidden 256, 4 experts, vocabulary 2,064$'
has out '^  parameters +5,956,864, of them 5,781,760 for text$'
has out "^  file +[0-9.]+ MB \([0-9,]+ bytes\)$"
has out '^  what +tensors +parameters +size +bytes +bits/param +worst error +stored as$'
has out '^  attention +16 +786,432 +405\.8 kB +405,760 +4\.128 +9\.[0-9]{3} %  nf4$'
has out '^  routed experts +48 +3,145,728 +1\.62 MB +1,622,976 +4\.127 +9\.[0-9]{3} %  nf4$'
has out '^  router +4 +4,096 +8\.19 kB +8,192 +16\.000 +-  bf16$'
has out '^  unused +42 +175,104 +350\.2 kB +350,208 +16\.000 +-  bf16$'
has out '^  all +133 +5,956,864 '
has out '^  GPU memory +[0-9.]+ MB +[0-9,]+  layers, experts, head, codebooks$'
has out '^  host memory +[0-9.]+ MB +[0-9,]+  embedding rows$'
has out '^  header, index, metadata +match their hashes$'
has out '^  payload +not read: scout-inspect verify good\.scout$'
has out '^  converter +scout-convert [0-9]'
has out '^  model-00001-of-00002\.safetensors +6\.01 MB +6,007,256  [0-9a-f]{32}$'
has out '^  tokenizer\.json +128,297$'
same "what stderr says" "$(cat err)" ""
runs 0 summary good.scout
cmp -s out summary || fail "the verb summary prints something else than a bare path"

# ---- tensors ----
runs 0 --tensors good.scout
cp out tensors
same "lines of --tensors" "$(wc -l <tensors | tr -d ' ')" 134
has tensors '^ *offset +bytes +size +role +shape +as +error +worst block +name$'
has tensors '^ *[0-9,]+ +33,812 +33\.81 kB +layer 2 expert 3 expert_down +\[256, 256\] +nf4 +9\.[0-9]{3} % +1[0-9]\.[0-9]{3} %  language_model\.model\.layers\.2\.feed_forward\.experts\.3\.down_proj\.weight$'
has tensors '^ *[0-9,]+ +1,056,768 +1\.06 MB +embedding +\[2064, 256\] +bf16 +- +-  language_model\.model\.embed_tokens\.weight$'
tr -d , <tensors | awk 'NR > 1 { if ($1 + 0 <= last + 0) exit 1; last = $1 }' || fail "--tensors is not in the order of the file"
runs 0 tensors good.scout
cmp -s out tensors || fail "the verb tensors prints something else than --tensors"

# ---- choosing tensors ----
runs 0 tensors good.scout --layer 1 --expert 2-3 --sort size
same "lines of layer 1, experts 2 and 3" "$(wc -l <out | tr -d ' ')" 7
has out 'layer 1 expert 3 expert_down'
runs 0 tensors good.scout --name '*.router.weight' --encoding bf16
same "lines of routers" "$(wc -l <out | tr -d ' ')" 5
runs 0 tensors good.scout --name '*.router.weight' --json
same "routers as JSON" "$(get out 'tensors#')" 4
same "the first router" "$(get out 'tensors[0].layer')" 0
runs 0 tensors good.scout --encoding nf4 --sort error
awk 'NR > 1 { for (i = 1; i < NF; i++) if ($(i + 1) == "%") { print $i; next } }' out >errors
same "errors, largest first" "$(sort -rn errors | cmp - errors && wc -l <errors | tr -d ' ')" "$(wc -l <errors | tr -d ' ')"
same "nf4 tensors" "$(wc -l <errors | tr -d ' ')" 76
runs 0 tensors good.scout --tree --depth 3
has out '^language_model +[0-9]+ +[0-9,]+ '
has out '^    layers +[0-9]+ '
runs 0 tensors good.scout --tree --layer 3
has out '^ +experts +12 +[0-9,]+ '
has out '^ +gate_proj +1 +[0-9,]+ '
runs 1 tensors good.scout --layer 9
has err 'none of its 133 tensors'
runs 1 tensors good.scout --layer 3-1
has err -- '--layer takes a number or a range as 0-3, not "3-1"'
runs 1 tensors good.scout --sort colour
has err 'not "colour"'
runs 2 layout good.scout --layer 1
has err -- '--layer does not go with layout'

# ---- extract ----
runs 0 extract good.scout 'language_model*.layers.1.*.k_proj.weight' -o k.npy --rows 3:9
has out '^k\.npy: 6\.27 kB of 1 tensors as f32$'
same "bytes of k.npy" "$(wc -c <k.npy | tr -d ' ')" $((128 + 6 * 256 * 4))
runs 0 extract good.scout '*router*' -o r.safetensors --as bf16
grep -aq '"language_model.model.layers.3.feed_forward.router.weight": {"dtype": "BF16", "shape": \[4, 256\]' r.safetensors ||
    fail "r.safetensors does not hold layer 3's router"
runs 1 extract good.scout '*' -o all.npy
has err 'takes one tensor, not 133'
runs 1 extract good.scout '*' -o x.safetensors --rows 9:3
runs 1 extract good.scout '*'
has err 'with -o FILE'
runs 1 extract good.scout '*' -o x.safetensors --as f64
has err 'raw, bf16 or f32, not "f64"'
[ -e x.safetensors ] && fail "a refused extraction left a file"

# ---- diff, verify --against ----
"$convert" "$source/examples/tiny-scout" -o kept.scout --model-id example/tiny --keep-bf16 '*o_proj*' >log 2>&1 ||
    fail "conversion with --keep-bf16 failed"
runs 0 diff good.scout good.scout
has out '^ +133 tensors: same$'
runs 1 diff good.scout kept.scout
has out '^values  nf4  bf16  .*layers\.2\.self_attn\.o_proj\.weight$'
has out '^ +4 tensors: values$'
has err 'good\.scout and kept\.scout differ in 4 of 133 tensors and 0 files$'
runs 1 diff "$source/examples/tiny-scout" good.scout --json
same "tensors that differ from the folder" "$(get out 'tensors#')" 76
same "files that differ from the folder" "$(get out 'states.same')" 57
same "what is in B" "$(get out 'tensors[0].b')" nf4
runs 1 diff good.scout nowhere
has err 'nowhere: .*No such file'
runs 2 diff good.scout
runs 0 verify good.scout --against "$source/examples/tiny-scout"
has out '^ +133 tensors: exact$'
runs 0 verify kept.scout --against "$source/examples/tiny-scout" --json --all
same "tensors proved" "$(get out proofs.exact)" 133
same "tensors listed" "$(get out 'tensors#')" 133
runs 1 verify good.scout --against "$source/tests/golden/llama4-tiny/scout/model"
has err 'good\.scout is not what .*: 0 of 133 tensors differ, 133 have no source'
rm kept.scout

# ---- tokenizer ----
runs 0 tokenizer good.scout
has out '^vocabulary of 2,064 ids; [0-9]+ special tokens:$'
has out '<\|begin_of_text\|>'
runs 0 tokenizer good.scout --encode 'the war' --special
has out '^ *[0-9]+  "<\|begin_of_text\|>" +yes'
has out '"the"'
has out '" war"'
runs 0 tokenizer good.scout --token ' war' --json
war=$(get out 'tokens[0].id')
same "text of \" war\"" "$(get out 'tokens[0].text')" ' war'
same "its bytes" "$(get out 'tokens[0].bytes')" 20776172
runs 0 tokenizer good.scout --id "$war"
has out '" war"'
runs 0 tokenizer good.scout --find ongres
has out 'ongress'
runs 1 tokenizer good.scout --id 999999
has err 'no token has the id 999999'
runs 1 tokenizer good.scout --token 'no such token'
has err 'is no token of its own'
runs 1 tokenizer good.scout --special
set --
for id in $(seq 0 255); do
    set -- "$@" --id "$id"
done
runs 0 tokenizer good.scout "$@"
LC_ALL=C grep -q "$(printf '[\001-\011\013-\037]')" out && fail "a control character reached the terminal"

# ---- JSON ----
runs 0 --json good.scout
cp out summary.json
same schema "$(get summary.json schema)" scout-inspect/1
same file.bytes "$(get summary.json file.bytes)" "$size"
same model.id "$(get summary.json model.id)" example/tiny
same model.parameters "$(get summary.json model.parameters)" 5956864
same total.parameters "$(get summary.json total.parameters)" 5956864
same text_total.parameters "$(get summary.json text_total.parameters)" 5781760
same "experts" "$(get summary.json 'contents[kind=routed experts].bytes')" 1622976
same "stored as" "$(get summary.json 'contents[kind=routed experts].stored_as.nf4')" 48
same "worst tensor of bf16" "$(get summary.json 'contents[kind=norms].worst_tensor')" null
same "health" "$(get summary.json health.payload)" "not checked"
same "shards" "$(get summary.json provenance.source#)" 2
same "carried config.json" "$(get summary.json 'carried[name=config.json].bytes')" "$(wc -c <"$source/examples/tiny-scout/config.json" | tr -d ' ')"
"$json_get" summary.json tensors >/dev/null 2>&1 && fail "--json alone lists tensors"
sum=0
for i in 0 1 2 3 4 5 6 7; do
    sum=$((sum + $(get summary.json "contents[$i].bytes")))
done
same "the sum of contents" "$sum" "$(get summary.json total.bytes)"
payload=$(get summary.json file.payload_bytes)
same "resident, host and unused" "$(($(get summary.json resident.gpu_bytes) + $(get summary.json resident.host_bytes) + $(get summary.json resident.unused_bytes)))" "$payload"
same "payload and padding" "$((sum + $(get summary.json resident.codebook_bytes) + $(get summary.json resident.padding_bytes)))" "$payload"
runs 0 --json --tensors good.scout
cp out layout.json
same "tensors in JSON" "$(get layout.json tensors#)" 133
base=$(get layout.json file.payload_offset)

# ---- views ----
runs 0 layout good.scout
cp out text
has text '^ *offset +bytes +size +what +planes +holes +padding$'
has text '^ *0 +[0-9,]+ +[0-9.]+ kB +header +- +- +-$'
has text 'layer 2 expert 3 +'
tr -d , <text | awk 'NR > 1 { if ($1 != at + 0) exit 1; at = $1 + $2 } END { print at }' >end || fail "the lines of layout do not tile the file"
same "where layout ends" "$(cat end)" "$size"
same "padding that layout counts" "$(tr -d , <text | awk 'NR > 1 { sum += $NF } END { print sum }')" "$(get summary.json resident.padding_bytes)"
runs 0 layout --json good.scout
same layout.schema "$(get out schema)" scout-inspect-layout/1
same "extents of layout" "$(get out extents#)" "$(get summary.json file.extents)"
same "offset of the first extent" "$(get out 'extents[0].offset')" "$base"
runs 0 experts good.scout
has out '^layer +0 +1 +2 +3$'
has out '^ +2( +9\.[0-9]{3}%){4}$'
has out '^every expert has 101,436 bytes$'
runs 0 experts --json good.scout
same experts.schema "$(get out schema)" scout-inspect-experts/1
same "experts" "$(get out experts#)" 16
same "bytes of an expert" "$(get out 'experts[5].bytes')" 101436
same "expert 5" "$(get out 'experts[5].layer') $(get out 'experts[5].expert')" "1 1"
runs 0 config good.scout
cmp -s out "$source/examples/tiny-scout/config.json" || fail "config prints something else than config.json"
runs 0 file good.scout tokenizer.json
cmp -s out "$source/examples/tiny-scout/tokenizer.json" || fail "file prints something else than tokenizer.json"
runs 1 file good.scout nothing.json
has err 'nothing\.json'
runs 0 files good.scout
has out '^128,297 +tokenizer\.json$'
runs 0 files --json good.scout
same "bytes in files" "$(get out 'files[name=tokenizer.json].bytes')" 128297
runs 0 provenance good.scout
has out '^  converter +scout-convert [0-9]'
has out '^  identity +[0-9a-f]{32}$'
has out '^  model-00001-of-00002\.safetensors +6\.01 MB +6,007,256  [0-9a-f]{32}$'
runs 0 provenance --json good.scout
same "identity" "$(get out file.identity)" "$(get summary.json file.identity)"
same "shards in provenance" "$(get out provenance.source#)" 2
runs 2 layout --threads 2 good.scout
has err 'threads does not go with layout'
runs 2 file good.scout
has err 'file takes MODEL NAME'

# ---- a good file is good ----
runs 0 verify good.scout
has out '^good\.scout: good: .* all [0-9]+ chunks of the payload'
runs 0 verify --json --threads 2 good.scout
same verify.schema "$(get out schema)" scout-inspect-verify/1
same verify.ok "$(get out ok)" true
same verify.error "$(get out error)" null
same verify.damaged_chunks "$(get out damaged_chunks)" 0
chunks=$(get out chunks)

# ---- damage ----

# flip FILE OFFSET: inverts one bit of one byte.
flip() {
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$(printf %03o $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
# place TENSOR PLANE: its address in the payload.
place() {
    get layout.json "tensors[name=$1].planes.$2.address"
}
# damaged ADDRESS NAME LINE: flips the byte; verify must fail, name the tensor in JSON and the line in text.
damaged() {
    cp good.scout bad.scout
    flip bad.scout $((base + $1))
    runs 1 verify bad.scout
    has out "^damaged: bytes $((base + $1 / 65536 * 65536))\.\.$((base + $1 / 65536 * 65536 + 65536)) of the file: chunk $(($1 / 65536)) \(payload $(($1 / 65536 * 65536))\.\.$(($1 / 65536 * 65536 + 65536))\): (.*, )?$3(,|$)"
    same "lines of damage" "$(wc -l <out | tr -d ' ')" 1
    has err "^scout-inspect: bad\.scout: 1 of $chunks chunks damaged$"
    runs 1 verify --json bad.scout
    same "ok of a damaged file" "$(get out ok)" false
    same "damaged chunks" "$(get out damaged_chunks)" 1
    same "damage of $2" "$(get out "damage[0].chunk")" $(($1 / 65536))
    n=$(get out 'damage[0].tensors#')
    found=no
    while [ "$n" -gt 0 ]; do
        n=$((n - 1))
        [ "$(get out "damage[0].tensors[$n]")" = "$2" ] && found=yes
    done
    same "is $2 among the damaged" "$found" yes
}
layers=language_model.model.layers
expert=$layers.1.feed_forward.experts.2.gate_proj.weight
damaged $(($(place "$expert" codes) + 1000)) "$expert" 'layer 1 expert 2 expert_gate'
same "layer of the damage" "$(get out 'damage[0].layer')" 1
same "expert of the damage" "$(get out 'damage[0].expert')" 2
same "kind of the damage" "$(get out 'damage[0].kind')" expert
q=$layers.3.self_attn.q_proj.weight
damaged $(($(place $q scale) + 17)) "$q" 'layer 3 q'
damaged "$(place $q scale2)" "$q" 'layer 3 q'
damaged "$(place $q offset)" "$q" 'layer 3 q'
router=$layers.0.feed_forward.router.weight
damaged "$(place $router codes)" "$router" 'layer 0 router'
damaged $(($(place language_model.lm_head.weight codes) + 500000)) language_model.lm_head.weight head
damaged $(($(place language_model.model.embed_tokens.weight codes) + 900000)) language_model.model.embed_tokens.weight embedding
vision=$(get layout.json 'tensors[part=unused].name')
damaged "$(place "$vision" codes)" "$vision" "$vision"
damaged "$(place $q codebook)" "$q" 'codebooks of .*layer [0-9]+ [a-z_]+'
# The last byte of an expert's extent is padding behind its down matrix, in the same chunk.
end=$(($(get layout.json 'extents[kind=expert].address') + $(get layout.json 'extents[kind=expert].bytes') - 1))
damaged $end $layers.0.feed_forward.experts.0.down_proj.weight 'layer 0 expert 0 expert_down'

cp good.scout bad.scout # two places: both are named, in order
flip bad.scout $((base + $(place "$expert" codes)))
flip bad.scout $((base + $(place $q codes)))
runs 1 verify bad.scout
same "lines of two damages" "$(wc -l <out | tr -d ' ')" 2
sed -n 1p out >first && has first 'layer 1 expert 2 expert_gate'
sed -n 2p out >second && has second 'layer 3 q'
has err "2 of $chunks chunks damaged"
runs 0 bad.scout # the summary does not read the payload, and says so
has out '^  payload +not read'

for place in 9:header 200:header $((base + payload + 3)):checksums $((size - 9)):metadata; do
    cp good.scout bad.scout
    flip bad.scout "${place%%:*}"
    for verb in verify summary; do
        runs 1 $verb bad.scout
        has err "^scout-inspect: bad\.scout: ${place##*:}"
        same "stdout of $verb" "$(cat out)" ""
    done
done
runs 1 verify --json bad.scout
same "ok of an unreadable file" "$(get out ok)" false
get out error >message
has message '^bad\.scout: metadata: hash mismatch'

# ---- what is no container ----
head -c $((size / 2)) good.scout >bad.scout
runs 1 bad.scout
has err '^scout-inspect: bad\.scout: '
runs 1 verify bad.scout
head -c 100 good.scout >bad.scout
runs 1 bad.scout
has err '^scout-inspect: bad\.scout: '
: >bad.scout
runs 1 bad.scout
runs 1 "$source/LICENSE"
has err 'LICENSE: .*not a \.scout container'
runs 1 nowhere.scout
has err '^scout-inspect: nowhere\.scout: cannot open: No such file or directory$'
runs 1 .
has err 'not a regular file'
same "lines on stderr" "$(wc -l <err | tr -d ' ')" 1

# ---- command lines ----
runs 2
runs 2 verify
has err 'MODEL is missing'
runs 2 good.scout good.scout
runs 2 verify --tensors good.scout
runs 2 --tensor good.scout
has err 'did you mean --tensors'
runs 2 verify --threads -1 good.scout
runs 0 --help
has out '^usage: scout-inspect '
if [ -w /dev/full ]; then
    "$inspect" good.scout >/dev/full 2>err
    same "exit status when stdout is full" $? 1
    has err 'cannot write to stdout'
fi

# ---- names are shown escaped ----
evil=$(printf 'a\033[31m\nb.scout')
cp good.scout "$evil"
runs 0 "$evil"
has out '^a\\x1b\[31m\\x0ab\.scout: scout container'
"$convert" "$source/examples/tiny-scout" -o evil.scout --model-id "$(printf 'x\033]0;y')" >log 2>&1 &&
    fail "a model id with an escape character was taken"
has log 'model id .*x\\x1b\]0;y.* --model-id'
grep -q "$(printf '\033')" log && fail "an escape character reached the terminal"

rm -f ./*.scout
[ "$failures" = 0 ] || {
    echo "test_scout_inspect: $failures checks failed" >&2
    exit 1
}
echo "test_scout_inspect: all checks passed"
