#!/bin/sh
# Installs what a build needs and this machine lacks, on Debian or Ubuntu; asks nothing.
#   cmake/install-deps.sh [build|test]     build: compiler, CMake, libraries; test (default): + Check, cppcheck
# Nothing is touched when nothing is missing. Where it cannot install it says what is missing and
# exits 1.
set -eu

want=${1:-test}
missing=

need() { # need PACKAGE COMMAND...: the command succeeds where the package's content is there
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

cmake_is_new_enough() {
    version=$(cmake --version | sed -n 's/^cmake version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ "${version% *}" -gt 3 ] || { [ "${version% *}" -eq 3 ] && [ "${version#* }" -ge 22 ]; }
}

# Besides finding cc and libc's headers, this sees a compiler without OpenMP or sanitizers.
compiler_works() {
    folder=$(mktemp -d)
    printf '#include <omp.h>\n#include <stdio.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' \
        >"$folder/t.c"
    status=0
    ${CC:-cc} -fopenmp -fsanitize=address,undefined -o "$folder/t" "$folder/t.c" || status=1
    rm -rf "$folder"
    return $status
}

look() {
    missing=
    if ! compiler_works >/dev/null 2>&1; then
        missing="$missing gcc libc6-dev"
    fi
    if command -v nvcc >/dev/null 2>&1; then
        need g++ command -v c++ # nvcc's host compiler
    fi
    need cmake cmake_is_new_enough
    command -v ninja >/dev/null 2>&1 || need make command -v make
    need pkg-config command -v pkg-config
    need libzstd-dev pkg-config --exists libzstd
    need libxxhash-dev pkg-config --exists libxxhash
    need libcjson-dev pkg-config --exists libcjson
    need libpcre2-dev pkg-config --exists libpcre2-8
    need libssl-dev pkg-config --exists libcrypto
    need libopenblas-dev pkg-config --exists openblas
    if [ "$want" = test ]; then
        need check pkg-config --exists check
        need cppcheck command -v cppcheck
    fi
}

give_up() {
    echo "install-deps: $1" >&2
    echo "install-deps: missing:$missing" >&2
    echo "install-deps: on Debian 12, Ubuntu 22.04 or newer: apt-get install$missing" >&2
    exit 1
}

look
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 || give_up "this machine has no apt-get, so nothing was installed"
if [ "$(id -u)" -eq 0 ]; then
    as_root="env"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    give_up "installing needs root, or sudo that asks for no password"
fi

echo "installing:$missing"
# A list that cannot be refreshed may still do: the installation decides.
$as_root DEBIAN_FRONTEND=noninteractive apt-get -q update >/dev/null ||
    echo "install-deps: apt-get update failed; trying with the lists that are here" >&2
# shellcheck disable=SC2086 # one word per package
$as_root DEBIAN_FRONTEND=noninteractive apt-get -qy -o Dpkg::Use-Pty=0 install \
    --no-install-recommends $missing >/dev/null </dev/null || give_up "apt-get install failed"
look
[ -z "$missing" ] || give_up "apt-get succeeded, and yet something is not there"
