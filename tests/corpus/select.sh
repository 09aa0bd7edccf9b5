#!/usr/bin/env bash
# Copies the recordings that the unit tests of agent/formats keep, at most 300 KB.
#
#   select.sh RECORDING [FIXTURES]
#
# RECORDING is what record.sh wrote.
set -euo pipefail
from=${1:?a recording}
to=${2:-$(realpath "$(dirname "$0")/../../agent/formats/tests/fixtures")}
every="panic-string/all nil-deref/single repanic-same/all panic-in-defer/all panic-multiline-recovered/all goexit-panic/all deadlock-goexit/all
    fatal-in-panics/single fault/single http-panics/all print-stack-twice/all recovered-report/all go-run/single test-timeout/single generic/all
    panic-text/none race-panic/all cgo-segv/none"
some="1.18.10/deep/single 1.18.10/map-writes-crowd/single 1.18.10/sigquit/all 1.18.10/sigquit/none
    1.21.13/map-writes-crowd/all 1.21.13/deadlock/all 1.21.13/worker-with-ancestors/all 1.21.13/cgo-callback/system 1.21.13/panic-multiline/none
    1.24.11/map-writes/system 1.24.11/bad-pointer/single 1.24.11/stack-all/all 1.24.11/test-broken/single
    1.26.8/labelled-with-labels/all 1.26.8/stack-overflow/single 1.26.8/checkptr/single 1.26.8/map-writes-crowd/single 1.26.8/cgo-trap/all
    1.27.3/labelled-with-labels/all 1.27.3/panic-string/crash 1.27.3/sigquit/all 1.27.3/out-of-memory/single 1.27.3/cgo-abort/crash 1.27.3/busy/all
    1.27.3/deep/all 1.27.3/http-then-panic/all 1.27.3/panic-nil/all 1.27.3/panic-float/none"
rm -rf "$to"
copy() { # release kind level
    mkdir -p "$to/$1/$3"
    cp "$from/$1/$2.expect" "$to/$1/"
    cp "$from/$1/$3/$2.txt" "$from/$1/$3/$2.status" "$to/$1/$3/"
}
for release in "$from"/1.*; do
    for one in $every; do copy "$(basename "$release")" "${one%/*}" "${one#*/}"; done
done
for one in $some; do IFS=/ read -r release kind level <<<"$one"; copy "$release" "$kind" "$level"; done
bytes=$(find "$to" -name '*.txt' -print0 | xargs -0 cat | wc -c)
echo "$bytes bytes in $(find "$to" -name '*.txt' | wc -l) recordings"
test "$bytes" -le 307200
