#!/bin/sh
# The page that scout-ft train writes: there at each save, whole, loads nothing; and in a browser without a
# screen, where there is one: figures, tables, pointer, theme, phone width.
#   test_run_report.sh SCOUT_CONVERT SCOUT_FT SOURCE_DIR SCRATCH_DIR
# shellcheck disable=SC2086 # $small is many words
set -u
convert=$1 ft=$2 source=$3 scratch=$4
failures=0
fail() {
    echo "test_run_report: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o m.scout --model-id '</script><b>&tiny' >log 2>&1 || fail "conversion failed"
head -c 6000 "$source/examples/data/moby.txt" >train.txt
head -c 9000 "$source/examples/data/moby.txt" | tail -c 1500 >held-out.txt
small="--model m.scout --data train.txt --max-seq-length 32 --per-device-train-batch-size 2 --device cpu --threads 2"
"$ft" train $small --eval-data held-out.txt --eval-steps 2 --max-steps 6 --save-steps 3 --output-dir whole >out 2>err || fail "train: $(cat err)"
"$ft" train $small --max-steps 1 --save-steps 0 --output-dir short >out 2>err || fail "train: $(cat err)"
for page in whole/report.html short/report.html; do
    [ -s "$page" ] || fail "there is no $page"
    grep -q '^</html>$' "$page" || fail "$page does not end"
    grep -Eiq '<(link|img|iframe)|https?://[^w]|src=|@import|url\(' "$page" && fail "$page loads something"
    [ "$(grep -c '</script>' "$page")" = 2 ] || fail "$page: a name ends its script"
done
grep -q '"is": "done"' whole/report.html || fail "the page does not say that the run is done"

browser=
for name in chromium chromium-browser google-chrome google-chrome-stable; do
    [ -n "$browser" ] || browser=$(command -v $name)
done
# browse PAGE WIDTH STATE: the probe must be content.
browse() {
    awk -v head="$source/tests/cli/report_probe_head.js" -v tail="$source/tests/cli/run_probe.js" '
        function put(file, line) { print "<script>"; while ((getline line < file) > 0) print line; print "</script>"; close(file) }
        $0 == "</body>" { put(tail) }
        { print }
        $0 == "<head>" { put(head) }' "$1" >probed.html
    "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$scratch/profile" --window-size="$2,900" \
        --enable-logging=stderr --virtual-time-budget=4000 --dump-dom "file://$scratch/probed.html" >dom 2>log
    grep -q '^probe: good$' dom || {
        fail "$1 at width $2:"
        grep '^probe' dom >&2 || tail -3 log >&2
    }
    grep -q "^probe state: $3" dom || fail "$1 at width $2 has another state: $(grep '^probe state' dom)"
    grep -q 'CONSOLE' log && fail "$1 at width $2 wrote to the console: $(grep CONSOLE log | head -3)"
}
if [ -n "$browser" ]; then
    browse whole/report.html 1200 'Done.'
    browse whole/report.html 500 'Done.'
    browse short/report.html 500 'Done.'
else
    echo "test_run_report: no chromium or google-chrome here: the page was not opened"
fi
[ "$failures" = 0 ] || exit 1
echo "test_run_report: all checks passed"
