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

# Killed again and again; a second process on the same output is refused meanwhile.
kills=0
for pause in 0.3 0.9 0.5 1.3 0.7 1.1 0.4 1.5 0.6 1.0; do
    timeout --foreground -s KILL "$pause" "$convert" big -o killed.scout >out 2>err
    [ $? = 137 ] && kills=$((kills + 1))
    [ -e killed.scout ] && break
done
[ "$kills" -gt 0 ] || fail "nothing was killed"
if [ ! -e killed.scout ]; then
    "$convert" big -o killed.scout >out 2>err &
    first=$!
    sleep 0.2
    "$convert" big -o killed.scout >out2 2>err2 && [ ! -e killed.scout ] && fail "two at once"
    grep -q 'another process is at work' err2 || [ -e killed.scout ] || fail "two at once: $(cat err2)"
    wait "$first" || fail "going on: $(cat err)"
fi
cmp whole.scout killed.scout || fail "interruptions show in the file"
[ "$(find . -name '*.partial' -o -name '*.journal')" = "" ] || fail "a partial file or journal was left"

# --restart forgets; other options are refused.
timeout --foreground -s KILL 1.5 "$convert" big -o again.scout >out 2>err
if [ -e again.scout.journal ]; then
    "$convert" big -o again.scout --keep-bf16 '*q_proj*' >out 2>err
    [ -e again.scout ] && grep -q 'other sources or options' err && fail "other options were taken"
    "$convert" big -o again.scout --restart --keep-bf16 '*q_proj*' >out 2>err || fail "--restart: $(cat err)"
fi

cd / && rm -rf "$scratch"
[ "$failures" = 0 ] && echo "test_convert_large: all as expected, $kills kills"
exit $((failures > 0))
