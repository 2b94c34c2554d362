#!/bin/sh
# cppcheck over every C file of a build; --tidy: clang-tidy too, which takes some minutes.
#   static.sh BUILD_DIR [--tidy]     BUILD_DIR has compile_commands.json (any preset)
# Silent and 0 when nothing is found. What is known and wrong: cppcheck.suppress, ../../.clang-tidy.
set -u
build=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
jobs=$(nproc)
failed=0

cppcheck --project="$build/compile_commands.json" -j "$jobs" -q --enable=warning,performance,portability --inline-suppr \
    --suppressions-list="$here/cppcheck.suppress" --error-exitcode=3 \
    --template='{file}:{line}: {severity} {id}: {message}' || failed=1

if [ "${2:-}" = --tidy ]; then
    grep -o '"file": "[^"]*\.c"' "$build/compile_commands.json" | sed 's/.*: "//; s/"$//' | sort -u | grep "^$root/" |
        grep -v "^$build/" | xargs -P "$jobs" -n 8 clang-tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option >"$build/tidy.log" 2>/dev/null || failed=1
    cat "$build/tidy.log"
fi
exit $failed
