#!/bin/sh
# scout-inspect verify against a plain read of the same file, neither with anything of it in memory.
#   verify_cold.sh SCOUT_INSPECT MODEL.scout [ROUNDS]     as root: the page cache is dropped
# The two take turns, so that a disk that others use treats them alike. Prints seconds of each round,
# then the medians and their ratio (the rate of verify over that of the read); then verify warm.
set -eu
inspect=$1 model=$2 rounds=${3:-9}

cold() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}
seconds() { # seconds COMMAND...
    began=$(date +%s.%N)
    "$@" >/dev/null 2>&1
    echo "$(date +%s.%N) $began" | awk '{printf "%.3f", $1 - $2}'
}
median() {
    sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'
}

round=0 reads= verifies= warm=
while [ "$round" -lt "$rounds" ]; do
    cold
    read=$(seconds dd if="$model" of=/dev/null bs=4M)
    cold
    verify=$(seconds "$inspect" verify "$model")
    reads="$reads$read
" verifies="$verifies$verify
" warm="$warm$(seconds "$inspect" verify "$model")
"
    echo "read $read s, verify $verify s"
    round=$((round + 1))
done
bytes=$(stat -c %s "$model")
echo "$bytes $(printf %s "$reads" | median) $(printf %s "$verifies" | median) $(printf %s "$warm" | median)" |
    awk '{printf "%.2f GB: read %.2f GB/s, verify %.2f GB/s cold (%.2f of the read), %.2f GB/s warm\n",
        $1 / 1e9, $1 / 1e9 / $2, $1 / 1e9 / $3, $2 / $3, $1 / 1e9 / $4}'
