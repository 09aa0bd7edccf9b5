# Bytes per second of one client that takes a body of 64 MiB twenty times through the gate; nginx with proxy_buffering off.
# shellcheck shell=bash disable=SC2034,SC2154 # what lib.sh says is set here and there
# shellcheck source=tests/bench/gate.sh
. "$bench/gate.sh"

title="gated 64 MiB body"
unit="MiB/s"
better=higher
contenders=(goscope nginx haproxy)
goal=("≥ 2.5×" "stretch 1.4×")

prepare() {
    need python3 python3-minimal '3.11.*'
    start_gates
    check_same /debug/pprof/heap "$(sha256sum <"$work/body" | cut -d' ' -f1)"
}

measure() {
    taskset -c "$load_core" python3 "$bench/take.py" "$(port_of "$1")" /debug/pprof/heap "$credential" 20
}
