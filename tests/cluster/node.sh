#!/usr/bin/env bash
# A real Kubernetes of one node for the tests, in namespaces of its own: etcd, API server, controllers, scheduler and kubelet from their Go modules, containerd
# and runc. No image registry is asked for anything, no systemd is needed. Root is.
#
#   node.sh build     compiles the components, once for each set of versions; about nine minutes on two cores
#   node.sh up        starts the node and waits until it is ready, about ten seconds
#   node.sh load TAR  imports an OCI archive
#   node.sh tag A B   gives the image A the further name B
#   node.sh kubectl … kubectl as administrator
#   node.sh net CMD…  a command in the node's network, where pods can be reached by their address
#   node.sh down      stops everything and forgets the state
#
# The node's first process lives in its own process, mount and network namespace: when it is killed, the kernel ends everything below it, containers included,
# and every mount and interface goes too. What is left then, and taken away by down, are the state folder, the cgroups
# and the places for mounts that were not there before.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KUBERNETES=1.36.3 CONTAINERD=2.4.2 RUNC=1.5.2
cache=${GOSCOPE_CLUSTER_CACHE:-${HOME:?}/.cache/goscope-cluster}
bin=${GOSCOPE_CLUSTER_BIN:-$cache/kubernetes-${KUBERNETES}_containerd-${CONTAINERD}_runc-$RUNC/bin}
run=${GOSCOPE_CLUSTER_RUN:-$cache/run}
pki=$run/pki
node_ip=10.77.0.1 pod_cidr=10.78.0.0/24 service_cidr=10.96.0.0/16 api_ip=10.96.0.1
cgroup=goscope-node-$(cksum <<<"$run" | cut -d' ' -f1)
# What the components write to whatever they are told; inside, each is an empty folder in memory.
hidden=(/opt /run /var/lib/cni /var/lib/kubelet /var/log)

die() {
    echo "node.sh: $*" >&2
    exit 1
}

wait_for() { # WHAT COMMAND…
    local what=$1
    shift
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    die "no $what after 60 s; see $run/logs"
}

# ── building ──

build() {
    local version=k8s.io/component-base/version
    mkdir -p "$bin"
    exec 9>"$bin/.lock"
    flock 9
    if [ ! -x "$bin/kube" ]; then
        echo "   building Kubernetes $KUBERNETES: this once, about nine minutes" >&2
        (cd "$here/kube" && CGO_ENABLED=0 go build -trimpath -o "$bin/kube.tmp" \
            -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=${KUBERNETES%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<$KUBERNETES)" .)
        mv "$bin/kube.tmp" "$bin/kube"
    fi
    if [ ! -x "$bin/containerd" ] || [ ! -x "$bin/containerd-shim-runc-v2" ] || [ ! -x "$bin/ctr" ]; then
        echo "   building containerd $CONTAINERD" >&2
        GOBIN=$bin CGO_ENABLED=0 go install -trimpath -ldflags "-s -w -X github.com/containerd/containerd/v2/version.Version=$CONTAINERD" \
            github.com/containerd/containerd/v2/cmd/{ctr,containerd-shim-runc-v2,containerd}@v$CONTAINERD
    fi
    if [ ! -x "$bin/runc" ]; then
        echo "   building runc $RUNC" >&2
        GOBIN=$bin CGO_ENABLED=1 go install -tags seccomp -trimpath -ldflags "-s -w" github.com/opencontainers/runc@v$RUNC
    fi
}

# ── the node's first process, in its namespaces ──

start() { # NAME COMMAND…
    local name=$1
    shift
    "$@" >"$run/logs/$name.log" 2>&1 &
}

first_process() {
    PATH=$bin:$PATH
    local folder
    for folder in "${hidden[@]}"; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
    ip link set lo up
    ip link add node0 type veth peer name node0p # there may be no dummy device
    ip link set node0p up
    ip addr add $node_ip/24 dev node0
    # Services lead nowhere, as nothing translates their addresses; but pods ask the API server by its own, so that one is the node's.
    ip addr add $api_ip/32 dev node0
    ip link set node0 up
    ip route add default dev node0
    sysctl -qw net.ipv4.ip_forward=1

    start containerd containerd -c "$run/containerd.toml"
    start etcd kube etcd --data-dir "$run/etcd" --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
    start apiserver kube apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=443 --advertise-address=$node_ip \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" --client-ca-file="$pki/ca.crt" \
        --kubelet-client-certificate="$pki/admin.crt" --kubelet-client-key="$pki/admin.key" --kubelet-certificate-authority="$pki/ca.crt" \
        --kubelet-preferred-address-types=InternalIP --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$pki/sa.key" --service-account-signing-key-file="$pki/sa.key" \
        --service-cluster-ip-range=$service_cidr --authorization-mode=Node,RBAC --allow-privileged=true --enable-admission-plugins=NodeRestriction
    wait_for containerd ctr -a "$run/containerd.sock" version # kubelet gives up at once without it
    start kubelet kube kubelet --config="$run/kubelet.yaml" --kubeconfig="$run/kubelet.kubeconfig" --hostname-override=node1 \
        --node-ip=$node_ip --root-dir="$run/kubelet"
    start controllers kube controllers --kubeconfig="$run/admin.kubeconfig" --service-account-private-key-file="$pki/sa.key" \
        --root-ca-file="$pki/ca.crt" --use-service-account-credentials=true --leader-elect=false
    start scheduler kube scheduler --kubeconfig="$run/admin.kubeconfig" --leader-elect=false
    # Each of them is needed, and as process 1 this shell also reaps what containers leave.
    wait -n || true
    echo "a component ended" >"$run/logs/ended"
}

# ── the node from outside ──

# The process that started the namespaces and with which they end.
node_process() {
    local process
    process=$(cat "$run/node.pid" 2>/dev/null) || return 1
    # The number may belong to somebody else by now.
    tr '\0' ' ' 2>/dev/null <"/proc/$process/cmdline" | grep -qF "node.sh first_process $run " || return 1
    echo "$process"
}

# Its child, the first process inside, as seen from here.
first_inside() {
    local outer
    outer=$(node_process) || die "the node is not up"
    # -s: a process may end while it is looked at.
    grep -lsE "^PPid:[[:space:]]+$outer\$" /proc/[0-9]*/status | sed -E 's|^/proc/([0-9]+)/.*|\1|' || true
}

inside() { nsenter --target "$(first_inside)" --net --mount --pid "$@"; }
# Without the others, so that a signal to the command is one to the command.
net() { exec nsenter --net="/proc/$(first_inside)/ns/net" "$@"; }
kubectl() { ${last:+exec} nsenter --net="/proc/$(first_inside)/ns/net" "$bin/kube" kubectl --cache-dir "$run/kubectl" --kubeconfig "$run/admin.kubeconfig" "$@"; }

certificate() { # NAME SUBJECT SUBJECT-ALTERNATIVE-NAMES
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/$1.key" -out "$pki/$1.csr" -subj "$2"
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3" >"$pki/$1.ext"
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 30 -extfile "$pki/$1.ext" -out "$pki/$1.crt"
}

credentials() {
    mkdir -p "$pki"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$pki/ca.key" -out "$pki/ca.crt" -days 30 -subj /CN=test-ca
    openssl genrsa -out "$pki/sa.key" 2048
    certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$node_ip,IP:$api_ip,DNS:localhost,DNS:kubernetes.default.svc"
    certificate admin "/O=system:masters/CN=admin" DNS:admin
    certificate kubelet "/O=system:nodes/CN=system:node:node1" "DNS:node1,IP:$node_ip,IP:127.0.0.1"
    local user
    for user in admin kubelet; do
        cat >"$run/$user.kubeconfig" <<END
apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:443", certificate-authority: $pki/ca.crt}}]
users: [{name: $user, user: {client-certificate: $pki/$user.crt, client-key: $pki/$user.key}}]
contexts: [{name: test, context: {cluster: test, user: $user}}]
current-context: test
END
    done
}

configuration() {
    cat >"$run/cni/10-bridge.conflist" <<END
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_cidr"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
    # restrict_oom_score_adj: lowering it needs CAP_SYS_RESOURCE, which a container that runs the tests may not have.
    cat >"$run/containerd.toml" <<END
version = 3
root = "$run/containerd/root"
state = "$run/containerd/state"
[grpc]
  address = "$run/containerd.sock"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$run/cni"
END
    cat >"$run/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/kubelet.crt
tlsPrivateKeyFile: $pki/kubelet.key
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://$run/containerd.sock
address: $node_ip
podCIDR: $pod_cidr
podLogsDir: $run/pod-logs
volumePluginDir: $run/volume-plugins
volumeStatsAggPeriod: 5s
evictionHard: {memory.available: 50Mi, nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
END
}

# The node's folder in each cgroup hierarchy.
cgroups() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "/sys/fs/cgroup/$cgroup"
    else
        local hierarchy
        for hierarchy in /sys/fs/cgroup/*/; do [ -L "${hierarchy%/}" ] || echo "$hierarchy$cgroup"; done
    fi
}

up() {
    [ "$(id -u)" = 0 ] || die "a node needs root"
    ! node_process >/dev/null || die "the node is up already"
    [ -x "$bin/runc" ] || die "build first"
    down
    mkdir -p "$run"/{logs,etcd,containerd,kubelet,cni,pod-logs,volume-plugins}
    credentials 2>"$run/logs/openssl.log"
    configuration
    local folder
    for folder in "${hidden[@]}"; do
        [ -d "$folder" ] || LC_ALL=C mkdir -pv "$folder" | sed -n "s/^mkdir: created directory '\(.*\)'$/\1/p" >>"$run/made"
    done
    cgroups | while read -r folder; do mkdir -p "$folder"; done
    unshare --fork --kill-child --pid --mount --mount-proc --net --propagation private \
        "$here/node.sh" first_process "$run" </dev/null >"$run/logs/node.log" 2>&1 9>&- &
    echo $! >"$run/node.pid"
    disown
    wait_for node kubectl wait --for=condition=Ready node/node1 --timeout=1s
    wait_for "service account" kubectl get serviceaccount default
}

down() {
    local process folder
    if process=$(node_process); then
        kill -9 "$process"
        for _ in $(seq 100); do
            [ -e "/proc/$process" ] || break
            sleep 0.1
        done
    fi
    cgroups | while read -r folder; do
        # A group is busy for a moment after its last process.
        for _ in $(seq 100); do
            [ -d "$folder" ] || break
            find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        done
    done
    if [ -e "$run/made" ]; then tac "$run/made" | xargs -r rmdir; fi
    rm -rf "$run"
}

command=${1:-help}
[ $# = 0 ] || shift
case $command in
build | up | down) "$command" ;;
first_process) first_process ;;
kubectl) last=1 && kubectl "$@" ;;
net) net "$@" ;;
tag) inside "$bin/ctr" -a "$run/containerd.sock" -n k8s.io images tag --force "$@" ;;
load) inside "$bin/ctr" -a "$run/containerd.sock" -n k8s.io images import "$@" ;;
*)
    sed -n '2,16p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
