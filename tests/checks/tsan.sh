#!/bin/sh
# The tests of what uses threads of ours, under the thread sanitizer: builds those alone, in build/tsan.
#   tsan.sh [BUILD_DIR]
# First a program with a race (racing.c), which must be found.
# OpenMP and OpenBLAS get one thread: their runtimes are not built with the sanitizer, which sees races in them that
# are none. Exit status 1: a race, or a test failed.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
build=${1:-$root/build/tsan}
jobs=$(nproc)
tests='test_jobs test_map_guard test_container_check test_container_map test_convert test_resume test_diff test_import
    test_export test_merge test_tokenizer test_row test_dataset'

mkdir -p "$build"
# shellcheck disable=SC2086 # the tests are words
if ! { cmake --preset tsan -B "$build" && cmake --build "$build" --parallel "$jobs" --target racing $tests; } >"$build/build.log" 2>&1; then
    tail -n 30 "$build/build.log" >&2
    exit 1
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 TSAN_OPTIONS="halt_on_error=1:exitcode=66 ${TSAN_OPTIONS:-}"
if "$build/tests/checks/racing" >"$build/racing.log" 2>&1 || ! grep -q 'WARNING: ThreadSanitizer: data race' "$build/racing.log"; then
    echo "tsan.sh: a race that is there was not found:" >&2
    head -n 3 "$build/racing.log" >&2
    exit 1
fi
cd "$build" && ctest --output-on-failure --parallel "$jobs" --no-tests=error -R "^($(echo $tests | tr ' ' '|'))$"
