#!/bin/sh
# Converts a synthetic checkpoint of Scout's full geometry (217 GB) on a machine that never holds it: shards are
# made one at a time, converted as they come and deleted; then every byte of the container is verified.
#   full_convert.sh BUILD SHARD_DIRECTORY CONTAINER [options of synth, to make it smaller]
# SHARD_DIRECTORY: RAM-backed or fast, 4.5 GB for each of AHEAD (default 3) shards. CONTAINER: 60.4 GB of disk.
# Prints the most memory the converter had (its own: RssAnon; mapped files: RssFile, RssShmem), time and rate.
set -eu
build=$1 shards=$2 container=$3
shift 3
ahead=${AHEAD:-3}
rm -rf "$shards"
mkdir -p "$shards"
most="$container.memory"

"$build/bin/scout-convert" "$shards" -o "$container" --model-id synthetic --follow --delete-source \
    --report "$container.json" >"$container.log" &
converter=$!
watch() {
    while sleep 0.2 && status=$(cat "/proc/$converter/status" 2>/dev/null); do
        echo "$status" | awk '/^RssAnon|^RssFile|^RssShmem/ { printf "%s %s ", $1, $2 } END { print "" }'
    done | awk '{ for (i = 1; i < NF; i += 2) if ($(i + 1) > most[$i]) most[$i] = $(i + 1) }
                END { for (name in most) printf "most %s %.1f MB\n", name, most[name] * 1024 / 1e6 }' >"$most"
}
watch &
watcher=$!

sleep 1 # it watches the folder before the first shard is renamed into it
count=1 n=1
while [ "$n" -le "$count" ]; do
    while [ "$(find "$shards" -name '*.safetensors' | wc -l)" -ge "$ahead" ]; do
        kill -0 "$converter" || exit 1
        sleep 0.1
    done
    "$build/tests/bench/synth" "$shards" "$@" --only "$n"
    [ "$n" -gt 1 ] || count=$(find "$shards" -name 'model-*-of-*.safetensors' | sed 's/.*-of-0*\([0-9]*\)\..*/\1/')
    n=$((n + 1))
done
wait "$converter"
wait "$watcher"
grep -v '^deleted' "$container.log"
cat "$most"
sed -n '/"source_bytes"/p; /"seconds"/p; /"source_bytes_per_second"/p' "$container.json"
"$build/bin/scout-inspect" verify "$container"
