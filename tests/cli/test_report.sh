#!/bin/sh
# scout-inspect report: the page is one file, the same every time, and the committed one.
#   test_report.sh SCOUT_CONVERT SCOUT_INSPECT SOURCE_DIR SCRATCH_DIR
set -u
convert=$1 inspect=$2 source=$3 scratch=$4
failures=0
fail() {
    echo "test_report: $1" >&2
    failures=$((failures + 1))
}
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch" || exit 1
"$convert" "$source/examples/tiny-scout" -o tiny-scout.scout --model-id tiny-scout >log 2>&1 || {
    cat log >&2
    exit 1
}

"$inspect" report tiny-scout.scout -o a.html --threads 1 >out 2>err || fail "report failed: $(cat err)"
"$inspect" report tiny-scout.scout -o b.html --threads 3 >out 2>err || fail "report failed: $(cat err)"
cmp -s a.html b.html || fail "two reports of one container differ"
# The file's own length may differ: it holds zstd frames, and zstd's versions differ. So may the plan,
# which is about today's kernels: test_inspect_plan and the page's probe look at it.
mask() {
    sed 's/"file": {"bytes": [0-9]*/"file": {"bytes": N/; s/"plan": {.*/"plan": N/' "$1"
}
grep -q '"plan": {"cards": \[{"name": "h100-80"' a.html || fail "there is no plan in the page"
mask a.html >a.masked
mask "$source/examples/report/tiny-scout.html" | cmp -s - a.masked ||
    fail "examples/report/tiny-scout.html is not what this program makes (its README says how to renew it)"
[ "$(wc -c <a.html)" -lt 2097152 ] || fail "the report has 2 MiB or more"
grep -Eqi 'https?:|src=|@import|url\(|<link' a.html | grep -v 'www.w3.org/2000/svg' && fail "the page names something to load"
for section in contents layout experts errors histograms plan checksums provenance; do
    grep -q "<section id=\"$section\"" a.html || fail "there is no section $section"
done

# A name that would end the script, were it written as it is.
evil='<img src=x onerror=alert(1)>.scout'
cp tiny-scout.scout "$evil"
"$inspect" report "$evil" -o evil.html --no-verify >out 2>err || fail "report failed: $(cat err)"
grep -q '<img' evil.html && fail "a file's name became markup"
grep -q '"name": "\\u003cimg src=x onerror=alert(1)>.scout"' evil.html || fail "the file's name is not in the page"
grep -q '"state": "not checked"' evil.html || fail "--no-verify is not told"

"$inspect" report tiny-scout.scout -o named.html --no-verify --name '*experts.2.up_proj*' >out 2>err ||
    fail "report --name failed: $(cat err)"
[ "$(grep -o '"codes": \[' named.html | wc -l | tr -d ' ')" = 4 ] || fail "--name does not choose four histograms"

size=$(wc -c <tiny-scout.scout)
cp tiny-scout.scout bad.scout
printf '\377' | dd of=bad.scout bs=1 seek=$((size / 3)) conv=notrunc 2>/dev/null
"$inspect" report bad.scout -o bad.html >out 2>err && fail "a damaged container has a good report"
grep -q 'bad.scout: 1 of [0-9]* chunks damaged' err || fail "stderr does not tell of the damage"
grep -q '"state": "damaged", "chunks": [0-9]*, "damaged": 1, "listed": \[\[' bad.html || fail "the page does not tell of the damage"
"$inspect" report tiny-scout.scout >out 2>err && fail "a report without -o"
[ "$failures" = 0 ] || exit 1
echo "test_report: all checks passed"
