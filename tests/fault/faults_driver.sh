#!/bin/sh
# Training on CUDA where the driver is of no use (driver_stub.c): one sentence, exit status 1, nothing written.
#   faults_driver.sh SCOUT_CONVERT SCOUT_FT STUB_FOLDER SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 ft=$2 stub=$3 source=$4 scratch=$5
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout >out 2>err || {
    cat err >&2
    exit 1
}
head -c 1500 "$source/examples/data/moby.txt" >rows.txt
LD_LIBRARY_PATH=$stub timeout 60 "$ft" train --model m.scout --data rows.txt --output-dir run --device cuda \
    --max-seq-length 16 --max-steps 1 >out 2>err
status=$?
cat err
[ $status = 1 ] && [ "$(wc -l <err)" = 1 ] && grep -q '^scout-ft: no NVIDIA driver' err && [ ! -e run ] || {
    echo "faults_driver: exit status $status, or other words, or something was written" >&2
    exit 1
}
cd / && rm -rf "$scratch"
