#!/bin/sh
# scout-convert on a checkpoint larger than the memory it may have: bounded, killed, taken up again.
#   test_convert_large.sh SCOUT_CONVERT SYNTH SCRATCH_DIR
set -u
convert=$1 synth=$2 scratch=$3
LC_ALL=C
export LC_ALL

failures=0
fail() {
    echo "test_convert_large: $1" >&2
    failures=$((failures + 1))
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$synth" big --layers 3 --hidden 1024 --width 2048 --heads 8 --kv-heads 2 --vocabulary 32000 >out 2>err ||
    fail "synth: $(cat err)"

# Two waves of 128 MiB and a few MiB a thread: 340 MiB is enough, for 217 GB as for this.
prlimit --data=356515840 "$convert" big -o whole.scout --threads 2 >out 2>err ||
    fail "does not fit in 340 MiB: $(cat err)"
prlimit --data=104857600 "$convert" big -o none.scout --threads 2 >out 2>err &&
    fail "100 MiB are no limit here, so the test above shows nothing"
[ "$(find . -name 'none*')" = "" ] || fail "left $(find . -name 'none*')"

# Ended by every signal at random moments, until there were 60 endings; whatever gets through is the
# same file. INT and TERM end it in order, within a second or two; KILL as it stands.
random_pause() { # 0.00 to 1.49 s
    echo "$(od -An -N2 -tu2 /dev/urandom)" | awk '{ printf "%.2f", ($1 % 150) / 100 }'
}
endings=0 finished=0 signal=KILL
while [ "$endings" -lt 60 ] && [ "$failures" = 0 ]; do
    pause=$(random_pause)
    timeout --foreground -s "$signal" "$pause" "$convert" big -o killed.scout >out 2>err
    status=$?
    case $status in
        0)
            cmp whole.scout killed.scout || fail "interruptions show in the file"
            [ "$(find . -name '*.partial' -o -name '*.journal')" = "" ] || fail "a partial file or journal was left"
            rm killed.scout
            finished=$((finished + 1))
            ;;
        124 | 137)
            endings=$((endings + 1))
            # KILL after the rename, while reading back: the file is there, and whole
            [ ! -e killed.scout ] || cmp whole.scout killed.scout || fail "half a file looks finished"
            [ "$signal" = KILL ] || [ -e killed.scout ] || grep -q 'interrupted' err || [ ! -s err ] ||
                fail "$signal: $(cat err)"
            ;;
        *) fail "$signal after $pause s: exit status $status, $(cat err)" ;;
    esac
    case $signal in KILL) signal=INT ;; INT) signal=TERM ;; *) signal=KILL ;; esac
done
rm -f killed.scout

# A second process on the same output is refused meanwhile.
"$convert" big -o killed.scout >out 2>err &
first=$!
sleep 0.3
"$convert" big -o killed.scout >out2 2>err2 && [ ! -e killed.scout ] && fail "two at once"
grep -q 'another process is at work' err2 || [ -e killed.scout ] || fail "two at once: $(cat err2)"
wait "$first" || fail "going on: $(cat err)"
cmp whole.scout killed.scout || fail "going on gives another file"

# A shard that is cut while it is being read: one sentence, nothing lost.
shard=$(find big -name 'model-00003-*.safetensors')
cp "$shard" safe
"$convert" big -o cut.scout --threads 1 >out 2>err &
first=$!
sleep 0.3
kill -STOP "$first"
truncate -s 1000000 "$shard"
kill -CONT "$first"
wait "$first"
[ $? = 1 ] || fail "a shard cut under its reader: not exit status 1"
grep -Eq '^scout-convert: .*model-00003-.*: (became shorter while it was read|a part of it could not be read)' err || fail "a cut shard: $(cat err)"
[ "$(wc -l <err)" = 1 ] && [ ! -e cut.scout ] || fail "a cut shard: $(cat err)"
cp safe "$shard"
"$convert" big -o cut.scout >out 2>err || fail "after the shard was put back: $(cat err)"
cmp whole.scout cut.scout || fail "a cut shard shows in the file"

# --restart forgets; other options are refused.
timeout --foreground -s KILL 1.5 "$convert" big -o again.scout >out 2>err
if [ -e again.scout.journal ]; then
    "$convert" big -o again.scout --keep-bf16 '*q_proj*' >out 2>err
    [ -e again.scout ] && grep -q 'other sources or options' err && fail "other options were taken"
    "$convert" big -o again.scout --restart --keep-bf16 '*q_proj*' >out 2>err || fail "--restart: $(cat err)"
fi

cd / && rm -rf "$scratch"
[ "$failures" = 0 ] && echo "test_convert_large: all as expected, $endings endings, $finished whole conversions between"
exit $((failures > 0))
