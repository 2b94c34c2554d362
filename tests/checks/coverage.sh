#!/bin/sh
# Runs the tests on a build that counts lines, and prints how many ran, by folder and whole.
#   coverage.sh [--long] [BUILD_DIR]     build/coverage; --long: the tests labelled long, too
# Bars: libformat 95 % of lines, everything else 85 %; below them it names the files lowest. Files for CUDA and
# for other processors are not built and not counted; tests/fault's injected failures are. Exit status 1: below
# a bar, or a test failed. Needs gcc and gcovr.
set -u
cd "$(dirname "$0")/../.." || exit 1
root=$PWD
apart='^(long|gpu|soak|browser)$'
if [ "${1:-}" = --long ]; then
    apart='^(gpu|soak|browser)$'
    shift
fi
build=${1:-$root/build/coverage}
jobs=$(nproc)
failed=0
export OMP_WAIT_POLICY=passive

command -v gcovr >/dev/null || {
    echo "coverage.sh: no gcovr; on Debian or Ubuntu: apt-get install gcovr" >&2
    exit 1
}
mkdir -p "$build"
if ! { cmake --preset coverage -B "$build" && cmake --build "$build" --parallel "$jobs"; } >"$build/build.log" 2>&1; then
    tail -n 30 "$build/build.log" >&2
    exit 1
fi
find "$build" -name '*.gcda' -delete # counts of an earlier run
# install compiles a program of a stranger, who knows nothing of gcov.
(cd "$build" && ctest --output-on-failure --parallel "$jobs" -LE "$apart" -E "^install$") || failed=1

set --
if ! grep -qw avx512bw /proc/cpuinfo; then
    echo "not counted: libformat/codec/nf4_avx512.c, which this processor cannot run"
    set -- --exclude 'libformat/codec/nf4_avx512\.c$'
fi
gcovr --root "$root" --filter '(libformat|kernels|train|tools)/.*\.c$' -j "$jobs" --csv "$@" -o "$build/lines.csv" "$build" || exit 1
awk -F, '
    function add(place) { lines[place] += $2; ran[place] += $3 }
    NR == 1 { if ($2 != "line_total" || $3 != "line_covered") { print "coverage.sh: gcovr speaks otherwise"; exit 1 } next }
    {
        top = $1; sub(/\/.*/, "", top)
        folder = $1; sub(/\/[^\/]*$/, "", folder)
        add(folder); add(top == "libformat" ? "all of libformat" : "all the rest"); add("whole")
        if ($2 > $3) printf "%05d %-42s %5d of %5d lines %6.1f %%\n", $2 - $3, $1, $3, $2, 100 * $3 / $2 >missed
    }
    function row(place) { return sprintf("%-42s %5d of %5d lines %6.1f %%\n", place, ran[place], lines[place], 100 * ran[place] / lines[place]) }
    END {
        for (place in lines) if (place !~ /^(all|whole)/) printf "%s", row(place) | "sort"
        close("sort")
        printf "%s%s%s", row("all of libformat"), row("all the rest"), row("whole")
        low = ran["all of libformat"] < 0.95 * lines["all of libformat"] || ran["all the rest"] < 0.85 * lines["all the rest"]
        exit low
    }' missed="$build/missed.txt" "$build/lines.csv" || {
    failed=1
    echo "below the bar (libformat 95 %, the rest 85 %); most lines that no test runs:"
    sort -r "$build/missed.txt" | head -n 25 | cut -c7-
}
exit $failed
