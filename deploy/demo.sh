#!/usr/bin/env bash
# The main job on a real Go service: profiles behind a token, metrics, a crash recorded and explained. Needs no answers, ends by itself, and fails if any
# step does not give what it should. Installs what is missing and says so.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
# shellcheck source=tests/install.sh
. tests/install.sh

run_pid=
finish() {
    status=$?
    # Without its app goscope ends in order, and the agent with it.
    [ -n "$run_pid" ] && kill "$run_pid" 2>/dev/null
    [ "$status" = 0 ] || printf '\ndemo.sh: failed; what there is lies in %s\n' "${folder:-nowhere}" >&2
}
trap finish EXIT

# expect WHAT PATTERN FILE: the file must hold the pattern.
expect() { grep -qE -- "$2" "$3" || { cat "$3" >&2; die "$1: nothing matches $2"; }; }
show() { sed 's/^/   /' "$1"; }
free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}
# await SECONDS COMMAND…: until the command succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

step "tools"
need_commands curl=curl gcc=gcc
[ -e /usr/include/stdio.h ] || need_commands no-such-header=libc6-dev
need_rust
need_go

step "build goscope and the shop, a small Go service"
"$cargo" build --locked --release --package goscope
goscope=${CARGO_TARGET_DIR:-$root/target}/x86_64-unknown-linux-gnu/release/goscope
folder=$(mktemp -d)
(cd tests/workloads/shop && CGO_ENABLED=0 go build -buildvcs=false -trimpath -o "$folder/shop" .)

cd "$folder"
app=$(free_port 6060) gate=$(free_port 6061) metrics=$(free_port 9464)
[ "$app" != "$gate" ] || gate=$(free_port $((gate + 1)))
printf 'target: { address: "127.0.0.1:%s" }\nlisten: { debug: "127.0.0.1:%s", metrics: "127.0.0.1:%s" }\n' "$app" "$gate" "$metrics" >goscope.yaml

step "goscope run --config goscope.yaml -- ./shop -debug 127.0.0.1:$app"
"$goscope" run --config goscope.yaml -- ./shop -debug "127.0.0.1:$app" -ready-file ready 2>stderr.txt </dev/null &
run_pid=$!
await 30 curl -sf --noproxy '*' "http://127.0.0.1:$metrics/readyz" || { cat stderr.txt >&2; die "goscope is not ready"; }
await 30 test -e ready || die "the shop does not listen"
shop=$(sed -n 's/^shop=//p' ready)
show stderr.txt
for customer in ann bob eve; do
    curl -sf --noproxy '*' "http://$shop/cart?customer=$customer&sku=sku-0001&quantity=2" >/dev/null
    curl -sf --noproxy '*' "http://$shop/checkout?customer=$customer" >/dev/null
done

step "go tool pprof -top http://me:TOKEN@127.0.0.1:$gate/debug/pprof/heap"
PPROF_TMPDIR=$folder timeout 60 go tool pprof -top "http://me:$(cat goscope-data/token)@127.0.0.1:$gate/debug/pprof/heap" >top.txt 2>top.err || { cat top.err >&2; die "pprof was refused"; }
expect "a heap profile" 'flat%' top.txt
head -n 8 top.txt | sed 's/^/   /'

step "the same without a token"
if timeout 60 go tool pprof -top "http://127.0.0.1:$gate/debug/pprof/heap" >refused.txt 2>&1 </dev/null; then
    die "it was let in"
fi
expect "a refusal" '401' refused.txt
show refused.txt

step "curl http://127.0.0.1:$metrics/metrics"
sampled() { curl -sf --noproxy '*' "http://127.0.0.1:$metrics/metrics" >metrics.txt && grep -q '^go_goroutines ' metrics.txt; }
await 30 sampled || die "no sample of the shop"
expect "the target is up" '^goscope_target_up 1' metrics.txt
grep -E '^(go_|goscope_target_up|goscope_gate_requests_total)' metrics.txt | head -n 12 | sed 's/^/   /'

step "the shop dereferences nil"
lines=$(wc -l <stderr.txt)
curl -s --noproxy '*' "http://$shop/fault/nil" >/dev/null || true
await 30 sh -c "! kill -0 $run_pid" || die "goscope run does not end"
status=0
wait "$run_pid" || status=$?
run_pid=
[ "$status" = 2 ] || die "exit status $status, a Go panic has 2"
tail -n "+$((lines + 1))" stderr.txt >crash.txt
expect "the panic" '^panic: runtime error: invalid memory address' crash.txt
grep -n -m 1 -A 4 '^panic: ' crash.txt | sed 's/^[0-9]*[:-]/   /'
say "[...] and at the end goscope's report; exit status $status:"
report=$(grep -n 'invalid memory address' crash.txt | tail -n 1 | cut -d: -f1)
tail -n "+$report" crash.txt | sed 's/^/   /'

incident=$(find goscope-data/data -path '*/incidents/*/incident.json' | sort | tail -n 1)
[ -n "$incident" ] || die "no incident was stored"
incident=${incident%/*}
step "goscope analyze $incident/stderr.txt"
timeout 30 "$goscope" analyze "$incident/stderr.txt" >analysis.txt || die "analyze failed"
expect "the faulting frame" 'fault\.nilDereference' analysis.txt
head -n 30 analysis.txt | sed 's/^/   /'

step "the evidence, in $folder/$incident"
find "$incident" -type f -printf '   %f, %s bytes\n' | sort
expect "the stored crash" '^panic: runtime error: invalid memory address' "$incident/stderr.txt"
printf '\nEvery step gave what it should.\n'
