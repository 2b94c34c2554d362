#!/bin/sh
# scout-ft preview: rows as tokens, marked; chat formats; what is refused.
set -eu
convert=$1 ft=$2 json_get=$3 source=$4 scratch=$5
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

"$convert" "$source/examples/tiny-scout" -o m.scout >/dev/null 2>&1
printf '%s\n' '{"messages":[{"role":"user","content":" Who? "},{"role":"assistant","content":"the\tsea\u001b"}]}' '' \
    '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"the"},{"role":"user","content":"b"},{"role":"assistant","content":"sea"}]}' >chat.jsonl

"$ft" preview --model m.scout --data chat.jsonl >out
says 'chat.jsonl:1: messages, ' out
says 'chat.jsonl:3: messages, ' out
says '|<|header_end|>|\n|\n[[the|\t|se|a|\x1b|<|eot|>]]' out
says '|\n|\n|W|h|o|?|<|eot|>|' out # trimmed: tiny-scout's own format
[ "$(grep -c '' out)" = 5 ] || fail "not five lines: $(cat out)"
grep -q "$(printf '\033')" out && fail "control characters in what is not a terminal's"

"$ft" preview --model m.scout --data chat.jsonl --chat-format llama4 --rows 1 >out
says '|\n|\n| Wh|o|?| |<|eot|>|' out
[ "$(grep -c messages out)" = 1 ] || fail "--rows 1 shows more"
"$ft" preview --model m.scout --data chat.jsonl --train-on last >out
[ "$(grep -c ']].*\[\[' out)" = 0 ] || fail "--train-on last marks more than one turn"
"$ft" preview --model m.scout --data chat.jsonl --train-on all --rows 1 >out
says '<|begin_of_text|>[[' out
"$ft" preview --model m.scout --data chat.jsonl --max-seq-length 3 --rows 1 >out
says 'cut behind 3 (--max-seq-length)' out

"$ft" preview --model m.scout --data chat.jsonl --json >out.json
[ "$("$json_get" out.json "[1].line")" = 3 ] || fail "line of the second row"
[ "$("$json_get" out.json "[0].kind")" = messages ] || fail "kind of the first row"
[ "$("$json_get" out.json "[0].labels[0]")" = -100 ] || fail "label of the first token"

refused() { # refused STATUS TEXT args...
    status=$1 text=$2
    shift 2
    set +e
    "$ft" "$@" >out 2>err
    got=$?
    set -e
    [ "$got" = "$status" ] || fail "$* exits with $got, not $status: $(cat err)"
    says "$text" err
}
echo '{"messages":[{"role":"user","content":[{"type":"image"}]}]}' >image.jsonl
refused 1 'image.jsonl: line 1: message 0: its content is an array' preview --model m.scout --data image.jsonl
refused 1 'images are not trained on here' preview --model m.scout --data image.jsonl --chat-format llama4
for row in '{"text": "x"' '{"text": "x"} {' '{"text": "\x"}' '[' "$(printf '{"text": "\377"}')"; do
    printf '%s\n' "$row" >torn.jsonl
    refused 1 'torn.jsonl: line 1: ' preview --model m.scout --data torn.jsonl
done
refused 2 '--chat-format is llama4' preview --model m.scout --data chat.jsonl --chat-format chatml
refused 2 '--train-on is all' preview --model m.scout --data chat.jsonl --train-on user
refused 2 '--rows is 0' preview --model m.scout --data chat.jsonl --rows 0
refused 2 'preview needs --data FILE' preview --model m.scout
refused 1 'no part that an assistant said' preview --model m.scout --data "$source/examples/data/moby.txt" --train-on last

# A template that is not known: only rows that need one are refused.
cp -r "$source/examples/tiny-scout" odd
echo '{{ messages }}' >odd/chat_template.jinja
"$convert" odd -o odd.scout >/dev/null 2>&1
refused 1 'chat_template.jinja holds a chat template' preview --model odd.scout --data chat.jsonl
"$ft" preview --model odd.scout --data chat.jsonl --chat-format llama4-trimmed --rows 1 >out
says '[[the|' out
echo '{"text":"the sea"}' >text.jsonl
"$ft" preview --model odd.scout --data text.jsonl >out
says 'text.jsonl:1: text, ' out

# Training takes the same rows.
"$ft" train --model m.scout --data chat.jsonl --max-steps 2 --per-device-train-batch-size 2 --device cpu \
    --output-dir run >log 2>&1 || fail "training: $(cat log)"
[ -f run/adapter_model.safetensors ] || fail "no adapter"
echo "preview: all as it should be"
