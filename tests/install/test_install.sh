#!/bin/sh
# Installs a build and uses it through pkg-config: every header alone, one program against the
# libraries, the tools.
#   test_install.sh CMAKE BUILD PREFIX CC SANITIZERS
set -eu
cmake=$1 build=$2 prefix=$3 cc=$4 sanitize=$5
here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "test_install: $1" >&2
    exit 1
}

rm -rf "$prefix"
"$cmake" --install "$build" --prefix "$prefix" >/dev/null

pc=$(find "$prefix" -name scout.pc)
[ -n "$pc" ] || fail "no scout.pc below $prefix"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
cflags=$(pkg-config --cflags scout)
libs=$(pkg-config --libs scout)
[ -z "$sanitize" ] || cflags="$cflags -fsanitize=$sanitize"

# Each header is complete: it compiles as the first line of a program, without our build's flags.
cd "$prefix/include/scout"
headers=$(find . -name '*.h' | sed 's|^\./||' | sort)
[ -n "$headers" ] || fail "no header below $prefix/include/scout"
for header in $headers; do
    # shellcheck disable=SC2086 # flags are several words
    printf '#include "%s"\n' "$header" |
        "$cc" -std=c11 -Wall -Wextra -Werror -fsyntax-only $cflags -x c - ||
        fail "$header does not compile on its own"
done

# shellcheck disable=SC2086
"$cc" -std=c11 -Wall -Wextra -Werror $cflags -o "$prefix/user" "$here/user.c" $libs
"$prefix/user" || fail "the program built against the installed libraries failed"
# The tools start from where they were installed, and say what they are for.
for tool in scout-convert scout-inspect scout-ft; do
    [ -x "$prefix/bin/$tool" ] || fail "no $tool in $prefix/bin"
    "$prefix/bin/$tool" --help | grep -q "^usage: $tool" || fail "$tool --help does not say how to use it"
done
echo "installed: $(echo "$headers" | wc -l) headers, $(find "$prefix" -name '*.a' | wc -l) libraries"
