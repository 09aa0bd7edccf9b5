#!/usr/bin/env bash
# All tests: ./tests/run.sh, as root, because the last of them run on a real Kubernetes node of their own; its components are compiled once, about fifteen
# minutes, meanwhile. The inner loop: ./tests/run.sh fast (unit tests and a few end-to-end tests, on a debug build). The tests on Kubernetes alone:
# ./tests/run.sh cluster [FILTER…], as root. The chart alone: ./tests/run.sh chart.
# Installs what is missing and says so. What is expensive is kept in ${GOSCOPE_TEST_CACHE:-~/.cache/goscope-tests}, ~/.cache/goscope-cluster and Cargo's target
# folder. The last line is that of the last tests: "test result: ok. …".
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/install.sh
. tests/install.sh

case ${1:-all} in
all) profile=release flags=(--release) filters=() ;;
fast)
    profile=debug flags=()
    filters=(faults::go1_27::nil faults::go1_27::deadlock faults::go1_27::exit faults::go1_27::handler clients::pprof_reads_every_profile_of_a_unix cli:: stream::a_hundred metrics::go_series_of_a_target_on_tcp)
    ;;
cluster) profile=release flags=(--release) filters=("${@:2}") ;;
chart) profile=debug flags=() filters=() ;;
*)
    echo "usage: $0 [fast | chart | cluster [FILTER…]]" >&2
    exit 2
    ;;
esac

step "tools"
need_commands curl=curl gcc=gcc script=bsdutils unshare=util-linux ip=iproute2
case ${1:-all} in
all | cluster) need_cluster ;;
esac
[ -e /usr/include/stdio.h ] || need_commands no-such-header=libc6-dev
need_rust
need_go
case ${1:-all} in
all | fast | chart) need_promtool ;;
esac
case ${1:-all} in
all | cluster)
    # shellcheck source=tests/cluster/run.sh
    . tests/cluster/run.sh
    start_components
    ;;
esac
if [ "${1:-all}" = all ]; then
    mapfile -t releases < <(grep -o '"1\.[0-9.]*"' tests/src/go.rs | tr -d '"' | sort -uV)
    need_go_releases "${releases[@]}"
fi

step "goscope ($profile)"
"$cargo" build --locked --package goscope "${flags[@]}"
GOSCOPE_BIN=${CARGO_TARGET_DIR:-$PWD/target}/x86_64-unknown-linux-gnu/$profile/goscope
export GOSCOPE_BIN
# An error's text says what was expected; the stack of the harness adds nothing.
export RUST_LIB_BACKTRACE=0

if [ "${1:-all}" != fast ]; then
    # shellcheck source=tests/chart.sh
    . tests/chart.sh
    need_helm
fi
if [ "${1:-}" = cluster ]; then
    test_cluster
    exit
fi
if [ "${1:-all}" != fast ]; then
    step "chart"
    test_chart
    [ "${1:-}" != chart ] || exit 0
fi

step "unit tests"
"$cargo" test --locked --quiet
"$cargo" test --locked --quiet --package goscope-e2e --lib

step "end-to-end tests"
"$cargo" test --locked --package goscope-e2e --test e2e -- "${filters[@]}"

if [ "${1:-all}" = all ]; then
    filters=()
    test_cluster
fi
