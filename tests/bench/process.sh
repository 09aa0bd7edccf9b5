# Shared by the rows about goscope as a process; process/ measures and verifies, this makes table lines of its figures.
# shellcheck shell=bash disable=SC2034,SC2154 # the row and run.sh set and read these

# process_row NAME: measures a row of process/ against the bare program.
process_row() {
    local build=$root/target/x86_64-unknown-linux-gnu/release
    command -v go >/dev/null || fail "needs go"
    ${CARGO:-cargo} build --quiet --release -p goscope --bin goscope
    (cd "$bench/process" && go run . -goscope "$build/goscope" -runs "${RUNS:-11}" "$1") >"$work/$1.json" || fail "$1 was not measured"
    python3 - "$title" "$work/$1.json" <<'P'
import json, sys

for line in open(sys.argv[2]):
    f = json.loads(line)
    show = lambda value: f"{value:.4g} {f['unit']}"
    peer, ratio = "", ""
    if f.get("peer"):
        peer = f"bare {show(f['peer'])}"
        ratio = f"{f['peer'] / f['ours']:.2f}×"
    peak = f"{f['peak_kib'] / 1024:.1f} MiB" if f.get("peak_kib") else ""
    print(f"| {sys.argv[1]} | {f['row']}; verified: {f['verified']} | {show(f['ours'])} | {peer} | {ratio} | {f['goal']} | {peak} | |")
P
}
