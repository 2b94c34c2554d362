#!/bin/sh
# cppcheck over every C file of a build; --tidy: clang-tidy too, which takes some minutes.
#   static.sh BUILD_DIR [--tidy | --analyzer]     BUILD_DIR has compile_commands.json (any preset)
# --analyzer: gcc's -fanalyzer over libraries and tools instead; what it says is to be read (README.md).
# Silent and 0 when nothing is found. What is known and wrong: cppcheck.suppress, ../../.clang-tidy.
set -u
build=$1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
jobs=$(nproc)
failed=0

if [ "${2:-}" = --analyzer ]; then
    sed -n 's/^ *"command": "\(.*\)",$/\1/p' "$build/compile_commands.json" | sed 's/\\"/"/g; s/\\\\/\\/g' |
        grep -E ' -c [^ ]*/(libformat|kernels|train|tools)/[^ ]*\.c$' |
        sed -E 's/^ccache //; s/ -fsanitize=[^ ]*//g; s/ -Werror//; s| -o [^ ]*| -o /dev/null|; s/$/ -O1 -fanalyzer -fdiagnostics-plain-output/' >"$build/analyzer.commands"
    xargs -P "$jobs" -d '\n' -n 1 sh -c <"$build/analyzer.commands" 2>"$build/analyzer.log"
    grep 'warning: .*\[-Wanalyzer' "$build/analyzer.log" | sed "s|$root/||" | sort | uniq -c
    echo "$(wc -l <"$build/analyzer.commands") files, $(grep -c 'warning: .*\[-Wanalyzer' "$build/analyzer.log") findings: $build/analyzer.log"
    exit 0
fi

cppcheck --project="$build/compile_commands.json" -j "$jobs" -q --enable=warning,performance,portability --inline-suppr \
    --suppressions-list="$here/cppcheck.suppress" --error-exitcode=3 \
    --template='{file}:{line}: {severity} {id}: {message}' || failed=1

if [ "${2:-}" = --tidy ]; then
    grep -o '"file": "[^"]*\.c"' "$build/compile_commands.json" | sed 's/.*: "//; s/"$//' | sort -u | grep "^$root/" |
        grep -v "^$build/" | xargs -P "$jobs" -n 8 clang-tidy -p "$build" --quiet --extra-arg=-Wno-unknown-warning-option >"$build/tidy.log" 2>"$build/tidy.err" || failed=1
    cat "$build/tidy.log"
    grep -v 'warnings\{0,1\} \(generated\|treated as\)' "$build/tidy.err" # a crash, a file that does not compile
fi
exit $failed
