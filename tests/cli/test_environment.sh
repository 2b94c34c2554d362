#!/bin/sh
# The tools where things are not as usual: odd names, a closed or full stdout, small limits, another
# umask, locale or working folder, sparse files beyond 2^31 and 2^32, two at once.
#   test_environment.sh SCOUT_CONVERT SCOUT_INSPECT SCOUT_FT SANITIZED SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 ft=$3 sanitized=$4 source=$5 scratch=$6

checks=0 failures=0
fail() {
    echo "test_environment: $1" >&2
    failures=$((failures + 1))
}
# gives STATUS WHAT COMMAND...: that exit status; 1 comes with one sentence.
gives() {
    want=$1 what=$2
    shift 2
    checks=$((checks + 1))
    "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "$what: exit status $got, not $want: $(tail -n 3 err)"
    [ "$want" != 1 ] || [ "$(grep -c '^scout-' err)" = 1 ] || fail "$what: not one sentence but: $(cat err)"
}
says() {
    grep -q -- "$1" err || fail "says $(cat err), not $1"
}

rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
model=$source/examples/tiny-scout
"$convert" "$model" -o m.scout >out 2>err || {
    cat err >&2
    exit 1
}
head -c 1200 "$source/examples/data/moby.txt" >rows.txt

# ---- names ----
newline=$(printf 'new\nline')
latin=$(printf 'caf\351')
for name in 'with spaces' '-dash' "$newline" "$latin" '%s%n' '"quoted" *'; do
    cp -r "$model" "./$name"
    gives 0 "convert $name" "$convert" "./$name" --model-id a/b -o "./$name.scout"
    gives 0 "verify $name" "$inspect" verify "./$name.scout"
    cp rows.txt "./$name.txt"
    gives 0 "train $name" "$ft" train --model "./$name.scout" --data "./$name.txt" --output-dir "./$name.out" \
        --max-seq-length 16 --max-steps 1 --threads 1
    gives 1 "missing $name" "$inspect" "./$name.missing"
    [ "$(wc -l <err | tr -d ' ')" = 1 ] || fail "missing $name: a name broke the line: $(cat err)"
done
ln -s m.scout link.scout
gives 0 "a symbolic link" "$inspect" verify link.scout
mkdir real
ln -s real linked
gives 0 "train through symbolic links" "$ft" train --model link.scout --data rows.txt --output-dir linked \
    --max-seq-length 16 --max-steps 1 --threads 1
[ -L linked ] && [ -e real/metrics.jsonl ] || fail "a link as output folder was replaced: $(ls -l)"
gives 1 "an empty name" "$inspect" ''
mkfifo pipe.scout
gives 1 "a pipe" "$inspect" pipe.scout
gives 1 "a folder" "$inspect" .
gives 1 "a device" "$inspect" /dev/zero
gives 1 "a device as output" "$convert" "$model" -o /dev/null
[ -c /dev/null ] || fail "/dev/null was replaced"

# ---- stdout, stdin, terminal ----
("$inspect" tensors m.scout; echo $? >status) 2>err | head -n 1 >out
[ "$(cat status)" -le 1 ] || fail "a closed pipe: exit status $(cat status)"
[ -s err ] && grep -qi 'sanitizer\|signal' err && fail "a closed pipe: $(cat err)"
if [ -c /dev/full ]; then
    "$inspect" tensors m.scout >/dev/full 2>err && fail "a full stdout was not noticed"
    says 'cannot write to stdout'
fi
"$inspect" verify m.scout >&- 2>err && fail "no stdout was not noticed"
"$inspect" verify m.scout <&- >out 2>&- || fail "no stdin and no stderr"

if command -v setsid >/dev/null; then
    gives 0 "no terminal: verify" setsid -w env -u TERM "$inspect" verify m.scout </dev/null
    gives 0 "no terminal: train" setsid -w env -u TERM "$ft" train --model m.scout --data rows.txt \
        --output-dir alone --max-seq-length 16 --max-steps 1 --threads 1 </dev/null
fi

# ---- limits ----
checks=$((checks + 2))
(ulimit -f 1000 && "$convert" "$model" -o limited.scout >out 2>err) && fail "a file size limit was not noticed"
says 'File too large'
rm -f limited.scout*
prlimit --nofile=8 "$inspect" verify m.scout >out 2>err || fail "8 open files are not enough for verify: $(cat err)"
prlimit --nofile=5 "$convert" "$model" -o few.scout >out 2>err && fail "5 open files should not do"
says 'Too many open files'
if [ "$sanitized" = no ]; then
    checks=$((checks + 2))
    (ulimit -s 256 && "$inspect" verify m.scout >out 2>err) || fail "256 KiB of stack are not enough for verify: $(cat err)"
    (ulimit -s 256 && "$convert" "$model" -o stack.scout >out 2>err) || fail "256 KiB of stack are not enough to convert: $(cat err)"
    (ulimit -s 512 && "$ft" train --model m.scout --data rows.txt --output-dir stack --max-seq-length 16 --max-steps 1 \
        --threads 1 >out 2>stack.err) || fail "512 KiB of stack are not enough to train: $(cat stack.err)"
    # OpenBLAS's own threads ask for memory again and again, and exit waits for them: without them.
    OPENBLAS_NUM_THREADS=1 timeout 30 prlimit --as=60000000 "$ft" train --model m.scout --data rows.txt --output-dir small \
        --max-steps 1 >out 2>err
    [ $? = 1 ] || fail "60 MB of addresses should not do: $(cat err)"
    [ "$(grep -c '^scout-ft: ' err)" = 1 ] || grep -qi 'blas\|libgomp\|error while loading' err || fail "little memory: $(cat err)"
fi

# ---- umask, locale, working folder ----
(umask 077 && "$convert" "$model" -o private.scout >out 2>err)
case $(ls -l private.scout) in
-rw-------*) ;;
*) fail "umask 077 gives $(ls -l private.scout)" ;;
esac
for locale in de_DE.UTF-8 tr_TR.UTF-8 POSIX nonsense; do
    checks=$((checks + 1))
    rm -f local.scout
    LC_ALL=$locale LANG=$locale "$convert" "$model" -o local.scout >out 2>err || fail "locale $locale: $(cat err)"
    cmp -s local.scout private.scout || fail "locale $locale shows in the file"
done
mkdir gone
checks=$((checks + 1))
(cd gone && rmdir ../gone && "$inspect" verify ../m.scout >../out 2>../err)
[ $? -le 1 ] || fail "a removed working folder"

# ---- sparse files beyond 2^31 and 2^32 ----
for bytes in 2147483649 4294967297; do
    truncate -s "$bytes" sparse.scout
    gives 1 "$bytes zero bytes as a container" "$inspect" sparse.scout
    cp m.scout longer.scout
    truncate -s "$bytes" longer.scout
    gives 1 "a container with a tail" "$inspect" longer.scout
    mkdir "big$bytes"
    cp "$model"/config.json "big$bytes"
    truncate -s "$bytes" "big$bytes/model.safetensors"
    gives 1 "$bytes zero bytes as a checkpoint" "$convert" "big$bytes" -o big.scout
    rm -rf "big$bytes"
done
rm -f sparse.scout longer.scout

# ---- a file system that cannot be written, or is full (root may mount; others skip these two) ----
mkdir mounted
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=1M scout mounted 2>/dev/null; then
    gives 1 "a full disk" "$convert" "$model" -o mounted/m.scout
    says 'No space left'
    [ -z "$(ls mounted)" ] || fail "left $(ls mounted) on a full disk"
    gives 1 "train on a full disk" "$ft" train --model m.scout --data rows.txt --output-dir mounted/a \
        --max-seq-length 16 --max-steps 3 --save-steps 1 --threads 1
    says 'No space left'
    if [ -e mounted/a/metrics.jsonl ]; then
        [ -z "$(tail -c 1 mounted/a/metrics.jsonl | tr -d '\n')" ] || fail "metrics.jsonl ends in a torn line"
    fi
    mount -o remount,ro mounted
    gives 1 "a read-only file system" "$convert" "$model" -o mounted/m.scout
    says 'Read-only file system'
    gives 1 "train on a read-only file system" "$ft" train --model m.scout --data rows.txt --output-dir mounted/b \
        --max-seq-length 16 --max-steps 1 --threads 1
    says 'Read-only file system'
    umount mounted
else
    echo "test_environment: no small file system could be mounted: full and read-only disks not tried here"
fi

# ---- two at once ----
"$convert" "$model" -o both.scout >out1 2>err1 &
one=$!
"$convert" "$model" -o both.scout >out2 2>err2
two=$?
wait "$one"
one=$?
checks=$((checks + 1))
cmp -s both.scout private.scout || fail "two converters on one output gave other bytes"
[ "$one" = 0 ] || [ "$two" = 0 ] || fail "two converters: neither finished: $(cat err1 err2)"
[ -z "$(find . -name '*.partial*' -o -name '*.journal')" ] || fail "left $(find . -name '*.partial*' -o -name '*.journal')"

# ---- a model that is replaced while it trains: the old file is read to its end ----
run="train --model swap.scout --data rows.txt --max-seq-length 16 --max-steps 20 --threads 1"
cp m.scout swap.scout
"$ft" $run --output-dir unswapped >out 2>err || fail "train: $(cat err)"
checks=$((checks + 1))
"$ft" $run --output-dir swapped >out 2>err &
child=$!
while [ ! -s swapped/metrics.jsonl ] && kill -0 $child 2>/dev/null; do sleep 0.01; done
head -c 4096 m.scout >other.scout
mv other.scout swap.scout
wait $child || fail "a replaced model: $(cat err)"
cmp -s swapped/adapter_model.safetensors unswapped/adapter_model.safetensors || fail "a replaced model shows in the adapter"

cd / && rm -rf "$scratch"
[ "$failures" -eq 0 ] || {
    echo "test_environment: $failures checks failed" >&2
    exit 1
}
echo "test_environment: $checks situations, all as expected"
