#!/bin/sh
# Installs what is missing, builds, runs every test; asks nothing.
#   tests/run.sh
# cppcheck first (tests/checks). Soaks, which try every fault, are not run: ctest -L soak.
# Under sanitizers (preset dev) all tests but the long numeric ones; those, and the GPU's where there
# is one, optimized (preset release: with CUDA kernels where nvcc is found). Everything built lies in
# build/tests. The last line is "N passed, N failed, N skipped"; exit status 0 only if none failed.
set -u
cd "$(dirname "$0")/.." || exit 1
root=$PWD
jobs=$(nproc)
passed=0 failed=0 skipped=0
export OMP_WAIT_POLICY=passive # tests run side by side: a thread that waits gives its core away

finish() { # finish [MESSAGE]: a message says why the run ended early, which is a failure
    if [ $# -gt 0 ]; then
        echo "tests/run.sh: $1" >&2
        failed=$((failed + 1))
    fi
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

build() { # build PRESET
    folder=$root/build/tests/$1
    generator=
    if [ ! -e "$folder/CMakeCache.txt" ] && command -v ninja >/dev/null 2>&1; then
        generator=-GNinja
    fi
    echo "== build $1"
    cmake --preset "$1" -B "$folder" $generator >"$root/build/tests/$1.configure.log" 2>&1 || {
        cat "$root/build/tests/$1.configure.log"
        finish "configuring $1 failed"
    }
    cmake --build "$folder" --parallel "$jobs" >"$root/build/tests/$1.build.log" 2>&1 || {
        grep -E -A5 'error|warning|FAILED|undefined reference' "$root/build/tests/$1.build.log" ||
            tail -n 50 "$root/build/tests/$1.build.log"
        finish "building $1 failed"
    }
}

attribute() { # attribute NAME: of the <testsuite> element, 0 if there is none
    value=$(tr '\n\t' '  ' <"$report" | sed -n "s/.*<testsuite [^>]* $1=\"\([0-9]*\)\".*/\1/p")
    echo "${value:-0}"
}

run() { # run PRESET NAME CTEST_OPTION...
    preset=$1
    report=$root/build/tests/$2.xml
    echo "== test $2"
    shift 2
    ran=0
    if (cd "$root/build/tests/$preset" && ctest -N "$@") | grep -q '^Total Tests: 0'; then
        echo "none here"
        return
    fi
    echo '<testsuite tests="0">' >"$report"
    (cd "$root/build/tests/$preset" &&
        ctest --output-on-failure --parallel "$jobs" --output-junit "$report" "$@")
    status=$?
    ran=$(attribute tests) bad=$(attribute failures)
    out=$(($(attribute skipped) + $(attribute disabled)))
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    passed=$((passed + ran - bad - out))
    failed=$((failed + bad))
    skipped=$((skipped + out))
}

mkdir -p build/tests
sh cmake/install-deps.sh test || finish "cannot install what the build needs"

build dev
build release

echo "== static checks"
if sh tests/checks/static.sh "$root/build/tests/dev"; then
    passed=$((passed + 1))
else
    failed=$((failed + 1))
fi

# Nothing may be skipped here: what needs a GPU is labelled gpu, what needs a browser browser.
before=$skipped
run dev sanitized -LE '^(long|gpu|soak|browser)$'
[ "$ran" -gt 0 ] || finish "no test was found"
run release long -L '^long$' -LE '^gpu$'
if [ "$skipped" -gt "$before" ]; then
    finish "a test that needs neither GPU nor browser was skipped"
fi
run dev browser -L '^browser$'

before=$skipped
run release gpu -L '^gpu$'
if [ "$skipped" -gt "$before" ] && nvidia-smi -L >/dev/null 2>&1; then
    finish "a GPU test was skipped on a machine that has one"
fi
finish
