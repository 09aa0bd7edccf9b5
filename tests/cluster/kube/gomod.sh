#!/usr/bin/env bash
# gomod.sh VERSION: writes go.mod and go.sum for another Kubernetes. Its module asks for its staging repositories at v0.0.0, which exists nowhere: each
# is replaced by its release of the same minor and patch number.
set -euo pipefail
cd "$(dirname "$0")"
version=${1:?a version, such as 1.36.3}
dir=$(cd / && go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
{
    printf 'module kube\n\ngo %s\n\nrequire k8s.io/kubernetes v%s\n\n' "$(sed -n 's/^go //p' "$dir/go.mod")" "$version"
    sed -n 's/^[[:space:]]*\(k8s.io\/[a-z-]*\) v0\.0\.0\( .*\)\{0,1\}$/\1/p' "$dir/go.mod" | while read -r module; do
        echo "replace $module => $module v0.${version#1.}"
    done
} >go.mod
go mod tidy
