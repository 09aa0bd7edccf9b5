#!/usr/bin/env bash
# Records what real Go releases print when a program dies: every kind of tests/corpus/gen, each release, each GOTRACEBACK level.
#
#   record.sh OUT [KIND…]
#
# writes OUT/<release>/<level>/<kind>.txt (standard error), .status (exit status) and OUT/<release>/<kind>.expect (what a parser must find).
# Programs are built with -trimpath, so no path of the machine is in the text. Releases come through Go's own toolchain mechanism.
set -euo pipefail
out=$(realpath -m "${1:?where to}"); shift
gen=$(realpath "$(dirname "$0")/gen")
releases=${RELEASES:-1.18.10 1.21.13 1.24.11 1.26.8 1.27.3}
levels=${LEVELS:-none single all system crash}
ulimit -c 0
mkdir -p "$out/bin" "$out/tmp"
export TMPDIR="$out/tmp"

build() { # release flavour cgo flags…
    (cd "$gen" && GOTOOLCHAIN=go$1 CGO_ENABLED=$3 GOFLAGS=-trimpath go build -o "$out/bin/$1-$2" "${@:4}" .)
}

record() { # release level kind command…
    local to="$out/$1/$2/$3"
    mkdir -p "$out/$1/$2"
    local status=0
    # The inner shell takes the notes that a shell prints about a child that a signal ended.
    (cd "$out/tmp" && GOTRACEBACK=$2 timeout -k 1 30 "${@:4}" >/dev/null 2>"$to.txt") 2>/dev/null || status=$?
    echo $status >"$to.status"
    if [ $status = 124 ]; then echo "time is up: $to" >&2; fi
}

for release in $releases; do
    build "$release" plain 0
    build "$release" cgo 1
    build "$release" race 1 -race
    (cd "$gen" && GOTOOLCHAIN=go$release CGO_ENABLED=0 GOFLAGS=-trimpath go test -c -o "$out/bin/$release-test" .)
    mkdir -p "$out/$release"
    plain=$("$out/bin/$release-plain" -kinds)
    for flavour in plain cgo race; do
        for kind in $("$out/bin/$release-$flavour" -kinds); do
            if [ $flavour != plain ] && grep -qx "$kind" <<<"$plain"; then continue; fi
            if [ $# -gt 0 ] && [[ " $* " != *" $kind "* ]]; then continue; fi
            "$out/bin/$release-$flavour" -expect "$kind" >"$out/$release/$kind.expect"
            for level in $levels; do record "$release" "$level" "$kind" "$out/bin/$release-$flavour" "$kind"; done
        done
    done
    if [ $# -gt 0 ]; then continue; fi
    for kind in worker labelled; do
        cp "$out/$release/$kind.expect" "$out/$release/$kind-with-labels.expect"
        cp "$out/$release/$kind.expect" "$out/$release/$kind-with-ancestors.expect"
        for level in $levels; do
            record "$release" "$level" $kind-with-labels env GODEBUG=tracebacklabels=1 "$out/bin/$release-plain" $kind
            record "$release" "$level" $kind-with-ancestors env GODEBUG=tracebackancestors=5 "$out/bin/$release-plain" $kind
        done
    done
    printf 'panic\ttest timed out after 200ms\n' >"$out/$release/test-timeout.expect"
    printf 'panic\truntime error: invalid memory address or nil pointer dereference\n' >"$out/$release/test-broken.expect"
    cp "$out/$release/panic-crowd.expect" "$out/$release/go-run.expect"
    for level in $levels; do
        record "$release" "$level" test-timeout "$out/bin/$release-test" -test.run TestSlow -test.timeout 200ms
        record "$release" "$level" test-broken "$out/bin/$release-test" -test.run TestBroken
        record "$release" "$level" go-run env -C "$gen" "GOTOOLCHAIN=go$release" CGO_ENABLED=0 GOFLAGS=-trimpath go run . panic-crowd
    done
done
rm -rf "$out/tmp"
