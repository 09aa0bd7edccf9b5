# The tests on a node. Sourced by tests/run.sh, which has built goscope and installed what is needed.
# shellcheck shell=bash
# shellcheck disable=SC2154 # cargo and filters are the caller's

node=tests/cluster/node.sh

step "the node's components"
"$node" build

# shellcheck source=tests/chart.sh
. tests/chart.sh
need_helm
GOSCOPE_HELMS=$(printf "$cache/tools/helm-%s/helm " "${helm_releases[@]}")
export GOSCOPE_HELMS

# Built before the node is up, so that it stands no longer than it must.
step "cluster tests"
"$cargo" test --locked --quiet --package goscope-e2e --test cluster --no-run

# One node at a time: a second run waits for the first.
mkdir -p "$cache"
exec 9>"$cache/node.lock"
flock 9

stop_node() {
    # The state goes away with the node, so what failed must be seen now.
    if [ "$1" != 0 ] && [ -n "${GOSCOPE_CLUSTER_KEEP_LOGS:-}" ]; then
        mkdir -p "$GOSCOPE_CLUSTER_KEEP_LOGS"
        cp -r "${GOSCOPE_CLUSTER_RUN:-$HOME/.cache/goscope-cluster/run}/logs" "$GOSCOPE_CLUSTER_KEEP_LOGS/" || true
    fi
    "$node" down
}
trap 'stop_node $?' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$node" up
"$cargo" test --locked --package goscope-e2e --test cluster -- --show-output "${filters[@]}"
