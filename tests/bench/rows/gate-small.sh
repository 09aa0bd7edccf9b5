# Requests per second through the gate, two bytes each: token, limits, allow list, audit or access log, one core for each proxy.
# shellcheck shell=bash disable=SC2034,SC2154 # what lib.sh says is set here and there
# shellcheck source=tests/bench/gate.sh
. "$bench/gate.sh"

title="gated 2-byte reply, 8 connections"
unit="req/s"
better=higher
contenders=(goscope nginx haproxy)
goal=("≥ 1.0×, stretch 1.2×" "")

prepare() {
    start_gates
    check_same /debug/pprof/cmdline "$(printf ok | sha256sum | cut -d' ' -f1)"
    for contender in "${contenders[@]}"; do
        seconds=1 measure "$contender" >/dev/null
    done
}

measure() {
    local report
    report=$(taskset -c "$load_core" wrk -t1 -c8 -d"${seconds:-5}s" -H "$credential" "http://127.0.0.1:$(port_of "$1")/debug/pprof/cmdline")
    if grep -q 'Non-2xx\|Socket errors' <<<"$report"; then
        fail "$1 did not answer every request: $report"
    fi
    awk '/^Requests\/sec:/ { print $2 }' <<<"$report"
}
