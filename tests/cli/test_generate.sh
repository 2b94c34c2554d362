#!/bin/sh
# scout-ft generate: transformers' greedy tokens, seeds, an adapter beside the base, what is refused.
set -eu
convert=$1 ft=$2 json_get=$3 source=$4 scratch=$5
golden=$source/tests/golden/generate/greedy.json
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
says() { # says TEXT FILE
    grep -qF -- "$1" "$2" || fail "$2 does not say: $1; it says: $(cat "$2")"
}
ids() { # ids FILE PATH: numbers, one a line
    count=$("$json_get" "$1" "$2#")
    i=0
    while [ "$i" -lt "$count" ]; do
        "$json_get" "$1" "$2[$i]"
        i=$((i + 1))
    done
}

"$convert" "$source/examples/tiny-scout" -o m.scout >/dev/null 2>&1
go() { "$ft" generate --model m.scout --device cpu "$@"; }

# Greedy: the tokens of transformers, for two texts and a conversation.
echo '{"messages": [{"role": "user", "content": "Who are you?"}]}' >chat.json
greedy() { # greedy NUMBER args...
    n=$1
    shift
    go "$@" --temperature 0 --max-new-tokens 48 --json >out.json 2>/dev/null
    ids "$golden" "[$n].ids" >want
    ids out.json 'answers[0].ids' >got
    [ "$(grep -c . want)" = 48 ] || fail "golden $n is short"
    cmp -s want got || fail "text $n: other tokens than transformers'"
}
greedy 0 --prompt "Call me Ishmael."
greedy 1 --prompt "The President said that "
greedy 2 --chat chat.json

# A seed says everything; another one something else.
go --prompt "The sea" --seed 5 --max-new-tokens 24 >a 2>/dev/null
go --prompt "The sea" --seed 5 --max-new-tokens 24 --threads 1 >b 2>/dev/null
go --prompt "The sea" --seed 6 --max-new-tokens 24 >c 2>/dev/null
cmp -s a b || fail "the same seed gives another text"
cmp -s a c && fail "another seed gives the same text"

# An adapter that learnt something, beside the base.
echo '{"prompt": "The sea", "completion": " sings."}' >data.jsonl
"$ft" train --model m.scout --data data.jsonl --max-steps 12 --per-device-train-batch-size 1 --learning-rate 5e-3 \
    --add-special-tokens --device cpu --output-dir run >log 2>&1 || fail "training: $(cat log)"
go --prompt "The sea" --adapter run --temperature 0 --max-new-tokens 12 >one 2>err
says ' sings.' one
says 'ended by <|eot|>' err
go --prompt "The sea" --adapter run --compare --temperature 0 --max-new-tokens 12 >both 2>/dev/null
says '--- base' both
says '--- adapter' both
go --prompt "The sea" --temperature 0 --max-new-tokens 12 >base 2>/dev/null
[ "$(sed -n 2p both)" = "$(cat base)" ] || fail "the base beside an adapter says something else"
[ "$(tail -n 1 both)" = "$(cat one)" ] || fail "the adapter beside the base says something else"

refused() { # refused STATUS TEXT args...
    status=$1 text=$2
    shift 2
    set +e
    go "$@" >out 2>err
    got=$?
    set -e
    [ "$got" = "$status" ] || fail "$* exits with $got, not $status: $(cat err)"
    says "$text" err
}
refused 2 'needs --prompt TEXT or --chat FILE, one of them'
refused 2 'needs --prompt TEXT or --chat FILE, one of them' --prompt x --chat chat.json
refused 2 '--compare is with --adapter DIR' --prompt x --compare
refused 2 '--max-new-tokens is 0' --prompt x --max-new-tokens 0
refused 1 'a top-p of 0' --prompt x --top-p 0
refused 1 'none.json' --chat none.json
echo '{"a": 1}' >bad.json
refused 1 'bad.json: neither a list of messages' --chat bad.json
refused 1 'the model has no chat format' --chat chat.json --chat-format none
echo "generate: all as it should be"
