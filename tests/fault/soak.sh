#!/bin/sh
# Every fault of every scene, or PER_MODE of each kind (fault_drive), shared among JOBS processes, and one table of it.
#   soak.sh BUILD_DIR SCRATCH_DIR [JOBS [MINUTES [PER_MODE]]]
# BUILD_DIR is whole and optimized (preset cpu or release), or under sanitizers (dev); SCRATCH_DIR best lies in memory, 100 MB a job. A shard
# that MINUTES (60) end is told as such. SCOUT_SEED=N chooses again what a run chose. Exit status 1: something
# was lost, or not all was run.
set -u
build=$(cd "$1" && pwd) scratch=$2 jobs=${3:-$(nproc)} minutes=${4:-60} per_mode=${5:-0}
source=$(cd "$(dirname "$0")/../.." && pwd)
seed=${SCOUT_SEED:-$(date +%s)}
mkdir -p "$scratch" && cd "$scratch" || exit 1
rm -rf out && mkdir out
end=$(($(date +%s) + minutes * 60))
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
export build source seed end per_mode

# What takes longest first, in as many parts as there are jobs; the rest whole.
shards=$jobs
for scene in export-bf16 resume train export parts follow parts-delete convert delete merge; do
    shard=0
    while [ $shard -lt "$shards" ]; do
        echo "$scene $shard/$shards"
        shard=$((shard + 1))
    done
done >list
"$build/tests/fault/fault_drive" --scenes | while read -r scene; do
    grep -q "^$scene " list || echo "$scene 0/1"
done >rest
cat rest >>list

xargs -P "$jobs" -L 1 sh -c '
    name=$0-$(echo "$1" | tr / .)
    left=$((end - $(date +%s)))
    [ $left -gt 0 ] || exit 0
    timeout --foreground -s TERM "$left" "$build/tests/fault/fault_drive" "$0" "$build/tests/fault/libfault_shim.so" "$build/bin" \
        "$source" "$PWD/$name" "$per_mode" "$seed" "$1" >"out/$name" 2>&1
    echo "ended with status $?" >>"out/$name"' <list

grep -h -A9 LOST out/* | head -100
printf "%-16s %8s %9s %8s %7s %9s %5s  %s\n" scene injected succeeded refused killed "run again" lost shards
while read -r scene shard; do
    name=$scene-$(echo "$shard" | tr / .)
    echo "shard $scene"
    [ -e "out/$name" ] && sed -n "s/^$scene /row &/p; s/^ended with status 0$/good $scene/p" "out/$name"
done <list | awk -v seed="$seed" '
    $1 == "shard" { if (!($2 in all)) order[n++] = $2; all[$2]++ }
    $1 == "good" { good[$2]++ }
    # Shards agree on whose turn it is only where each counted the same calls.
    $1 == "row" { at = $2 " " $3; if (at in calls && calls[at] != $4 && $3 != "sigkill") { print at ": shards count " calls[at] " and " $4 " calls"; differ++ } calls[at] = $4 }
    $1 == "row" { injected[$2] += $5; succeeded[$2] += $6; refused[$2] += $7; killed[$2] += $8; again[$2] += $9; lost[$2] += $10 }
    function line(name, i, s, r, k, a, l, text) { printf "%-16s %8d %9d %8d %7d %9d %5d  %s\n", name, i, s, r, k, a, l, text }
    END {
        for (i = 0; i < n; i++) {
            s = order[i]
            line(s, injected[s], succeeded[s], refused[s], killed[s], again[s], lost[s], (good[s] + 0) " of " all[s])
            I += injected[s]; S += succeeded[s]; R += refused[s]; K += killed[s]; A += again[s]; L += lost[s]; G += good[s]; N += all[s]
        }
        line("all", I, S, R, K, A, L, G " of " N " ended well, SCOUT_SEED=" seed)
        exit L > 0 || G < N || differ
    }'
