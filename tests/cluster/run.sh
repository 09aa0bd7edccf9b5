# The tests on a node. Sourced by tests/run.sh, which has installed what is needed.
# shellcheck shell=bash
# shellcheck disable=SC2154 # cache, cargo, filters and helm_releases are the caller's, status is at_exit's

node=tests/cluster/node.sh

# Compiles the node's components and the operator, each once for each version, behind everything else that runs: at the lowest priority they take what the
# compiler of Rust, which ends with minutes on one core, and the tests, which mostly wait, leave of the processors.
start_components() {
    components_work=$(mktemp -d)
    # In a process group of its own (set -m), so that it can be stopped with all compilers, whose work would be left behind.
    set -m
    GOTMPDIR=$components_work nice -n 19 bash -c "$node build && tests/cluster/operator/build.sh" \
        </dev/null >"$components_work/operator" 2>"$components_work/log" &
    set +m
    components=$!
    at_exit stop_components
}

stop_components() {
    if [ -n "$components" ]; then
        kill -- "-$components" 2>/dev/null || true
        wait "$components" 2>/dev/null || true
    fi
    rm -rf "$components_work"
}

await_components() {
    step "the components of a Kubernetes node, and prometheus-operator"
    local ended=0
    wait "$components" || ended=$?
    components=
    cat "$components_work/log" >&2
    [ "$ended" = 0 ] || die "the components were not built"
    GOSCOPE_OPERATOR=$(cat "$components_work/operator")
    export GOSCOPE_OPERATOR
}

test_cluster() {
    await_components
    GOSCOPE_HELMS=$(printf "$cache/tools/helm-%s/helm " "${helm_releases[@]}")
    export GOSCOPE_HELMS

    # Built before the node is up, so that it stands no longer than it must.
    step "cluster tests"
    "$cargo" test --locked --quiet --package goscope-e2e --test cluster --no-run
    "$cargo" test --locked --quiet --package goscope-e2e --test cluster -- versions::the_version_before

    # One node at a time: a second run waits for the first.
    mkdir -p "$cache"
    exec 9>"$cache/node.lock"
    flock 9
    # shellcheck disable=SC2016 # of then
    at_exit 'stop_node "$status"'
    # A run that was killed outright may have left its node.
    "$node" down
    "$node" up
    # In the background and waited for, because the shell acts on a signal only between commands, and then the node must go at once. More at a time than there are
    # processors: they mostly wait for the kubelet.
    set -m
    "$cargo" test --locked --package goscope-e2e --test cluster -- --test-threads 4 --show-output "${filters[@]}" </dev/null &
    set +m
    tests=$!
    # shellcheck disable=SC2016 # of then
    at_exit 'kill -- "-$tests" 2>/dev/null'
    wait "$tests"
}

stop_node() {
    # The state goes away with the node, so what failed must be seen now.
    if [ "$1" != 0 ] && [ -n "${GOSCOPE_CLUSTER_KEEP_LOGS:-}" ]; then
        mkdir -p "$GOSCOPE_CLUSTER_KEEP_LOGS"
        cp -r "${GOSCOPE_CLUSTER_RUN:-$HOME/.cache/goscope-cluster/run}/logs" "$GOSCOPE_CLUSTER_KEEP_LOGS/" || true
    fi
    "$node" down
}
