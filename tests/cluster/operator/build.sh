#!/usr/bin/env bash
# Compiles prometheus-operator with its config reloader, and Prometheus, and takes the operator's own manifests out of its module, once for each version; about
# six minutes on two cores. Prints the folder.
#
# The Prometheus of a distribution would not do: Debian's is built without Kubernetes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
OPERATOR=$(sed -n 's|^[[:space:]]*github.com/prometheus-operator/prometheus-operator v\([0-9.]*\).*|\1|p' go.mod)
PROMETHEUS=0.316.0 # its module's; the release is 3.16.0
cache=${GOSCOPE_CLUSTER_CACHE:-${HOME:?}/.cache/goscope-cluster}
folder=$cache/prometheus-operator-${OPERATOR}_prometheus-$PROMETHEUS

mkdir -p "$cache"
exec 9>"$cache/.prometheus-operator.lock"
flock 9
if [ ! -e "$folder" ]; then
    echo "   building prometheus-operator $OPERATOR and Prometheus: this once, about six minutes" >&2
    rm -rf "$folder.new"
    mkdir "$folder.new"
    export CGO_ENABLED=0
    go build -trimpath -ldflags "-s -w" -o "$folder.new/" tool
    GOBIN=$folder.new go install -trimpath -ldflags "-s -w" -tags remove_all_sd,enable_kubernetes_sd "github.com/prometheus/prometheus/cmd/prometheus@v$PROMETHEUS"
    source=$(go list -m -f '{{.Dir}}' github.com/prometheus-operator/prometheus-operator)
    cp -r --no-preserve=mode "$source/example/prometheus-operator-crd" "$folder.new/crds"
    cp --no-preserve=mode "$source/example/rbac/prometheus-operator/prometheus-operator-cluster-role.yaml" "$folder.new/cluster-role.yaml"
    # Whole or absent: a build that was cut short is begun again.
    mv "$folder.new" "$folder"
fi
echo "$folder"
