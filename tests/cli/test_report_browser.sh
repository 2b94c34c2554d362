#!/bin/sh
# The report in a browser without a screen: no error, hover, zoom, keyboard, labels, phone width.
# Without Chromium or Chrome: skipped (77).
#   test_report_browser.sh SCOUT_CONVERT SCOUT_INSPECT SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 source=$3 scratch=$4
browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$browser" ] || browser=$(command -v $name)
done
[ -n "$browser" ] || {
    echo "test_report_browser: skipped: neither chromium nor google-chrome is here"
    exit 77
}
failures=0
fail() {
    echo "test_report_browser: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1

# probed PAGE: PAGE with the probe's scripts at its front and end, as probed.html.
probed() {
    awk -v head="$source/tests/cli/report_probe_head.js" -v tail="$source/tests/cli/report_probe.js" '
        function put(file, line) { print "<script>"; while ((getline line < file) > 0) print line; print "</script>"; close(file) }
        $0 == "</body>" { put(tail) }
        { print }
        $0 == "<head>" { put(head) }' "$1" >probed.html
}
# browse WIDTH STATE: the probe must be content, and the page's state line as told.
browse() {
    "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/profile" --window-size="$1,900" \
        --enable-logging=stderr --virtual-time-budget=4000 --dump-dom "file://$scratch/probed.html" >dom 2>log
    grep -q '^probe: good$' dom || {
        fail "$page at width $1:"
        grep '^probe' dom >&2 || tail -3 log >&2
    }
    grep -q "^probe state: $2" dom || fail "$page at width $1 has another state: $(grep '^probe state' dom)"
    grep -q 'CONSOLE' log && fail "$page at width $1 wrote to the console: $(grep CONSOLE log | head -3)"
}

"$convert" "$source/examples/tiny-scout" -o tiny-scout.scout >log 2>&1 || fail "conversion failed"
"$convert" "$source/tests/golden/llama4-tiny/maverick/model" -o maverick.scout --keep-bf16 '*' >log 2>&1 || fail "conversion failed"
cp tiny-scout.scout bad.scout
printf '\377' | dd of=bad.scout bs=1 seek=$(($(wc -c <bad.scout) / 3)) conv=notrunc 2>/dev/null
cp tiny-scout.scout '<b onclick=1>.scout'
"$convert" "$source/examples/tiny-scout" -o set.scout --max-part-size 2MB >log 2>&1 || fail "conversion failed"
mkdir broken
cp set-*.scout broken/
printf '\377' | dd of="$(echo broken/set-00003-of-*.scout)" bs=1 seek=90000 conv=notrunc 2>/dev/null
for page in tiny-scout maverick bad '<b onclick=1>' set-00001-of-*.scout broken/set-00001-of-*.scout; do
    page=${page%.scout}
    "$inspect" report "$page.scout" -o page.html >/dev/null 2>&1
    probed page.html
    case $page in
    bad | broken/*) state='Damaged: 1 of' ;;
    *) state='Whole: all' ;;
    esac
    browse 1200 "$state"
    browse 500 "$state"
done
[ "$failures" = 0 ] || exit 1
echo "test_report_browser: all checks passed"
