# What the scripts need, installed where it is missing; each function says what it installs. To be sourced, from the repository's root.
# shellcheck shell=bash

cache=${GOSCOPE_TEST_CACHE:-${HOME:?}/.cache/goscope-tests}
cargo=${CARGO:-cargo}
go_bootstrap=1.26.8

step() { printf '\n== %s\n' "$*" >&2; }
say() { printf '   %s\n' "$*" >&2; }
die() {
    printf '\n%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# at_exit COMMAND: runs it when the script ends, however that is; what was given last runs first, with the status as $status.
at_exit() {
    exit_commands=("$1" "${exit_commands[@]}")
    trap run_exit_commands EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
}
exit_commands=()
run_exit_commands() {
    local status=$? command
    trap '' HUP INT TERM
    for command in "${exit_commands[@]}"; do eval "$command" || true; done
    exit "$status"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] && return
    as_root apt-get update -qq </dev/null >&2
    apt_updated=1
}

# need_commands COMMAND=PACKAGE…: Debian packages of the commands that are not there.
need_commands() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || die "install these first: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    apt_update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >&2
}

# The toolchain of rust-toolchain.toml with its components; rustup itself where there is none.
need_rust() {
    local channel
    PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    if ! command -v rustup >/dev/null; then
        say "installing rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y -q --default-toolchain none --profile minimal --no-modify-path >&2
    fi
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! rustup run "$channel" cargo clippy --version >/dev/null 2>&1 || ! rustup run "$channel" cargo fmt --version >/dev/null 2>&1; then
        say "installing Rust $channel"
        rustup toolchain install "$channel" --profile minimal --no-self-update --component clippy --component rustfmt >&2
    fi
}

# A Go that can fetch other releases by itself (1.21 and later).
need_go() {
    local minor folder
    PATH=$PATH:/usr/local/go/bin
    command -v go >/dev/null || need_commands go=golang-go
    minor=$(GOTOOLCHAIN=local go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    if [ "${minor:-0}" -lt 21 ]; then
        # A Go release is a module; one that is too old to switch to it can download it all the same. Module files are not executable.
        say "installing Go $go_bootstrap beside $(go env GOVERSION)"
        folder=$(cd / && go mod download -json "golang.org/toolchain@v0.0.1-go$go_bootstrap.linux-amd64" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
        [ -n "$folder" ] || die "cannot download Go $go_bootstrap"
        if [ ! -x "$folder/bin/go" ]; then
            chmod -R u+w "$folder/bin" "$folder/pkg/tool"
            chmod -R +x "$folder/bin" "$folder/pkg/tool"
        fi
        PATH=$folder/bin:$PATH
    fi
    say "$(GOTOOLCHAIN=local go version)"
}

# need_go_releases RELEASE…: fetched now, so that no test has to wait for a download.
need_go_releases() {
    local release
    for release in "$@"; do
        GOTOOLCHAIN=go$release go version >/dev/null || die "cannot get Go $release"
    done
    say "Go releases: $*"
}

# promtool, taken out of Debian's package: installing the package would start a server.
need_promtool() {
    local folder=$cache/tools/prometheus
    PATH=$PATH:$folder/usr/bin
    command -v promtool >/dev/null && return
    say "taking promtool out of Debian's prometheus package"
    command -v apt-get >/dev/null || die "install promtool first"
    apt_update
    mkdir -p "$folder"
    (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus </dev/null >&2 && dpkg-deb -x prometheus_*.deb .)
}

# need_cargo_tool NAME VERSION: kept outside the tree, by version.
need_cargo_tool() {
    local folder=$cache/tools/$1-$2
    PATH=$folder/bin:$PATH
    [ -x "$folder/bin/$1" ] && return
    say "installing $1 $2"
    "$cargo" install --quiet --locked --root "$folder" --target-dir "$folder/target" "$1@$2" </dev/null >&2
    rm -rf "$folder/target"
}

# What a Kubernetes node and its images are made with; the components themselves are compiled by tests/cluster.
need_cluster() {
    # Asked first, before anything is installed.
    if [ "$(id -u)" != 0 ] || ! unshare --mount --net --pid --fork true 2>/dev/null; then
        die "the tests on Kubernetes need root and the right to make namespaces: run this by sudo or in a privileged container, or run ./tests/run.sh fast, which does without"
    fi
    need_commands buildah=buildah flock=util-linux ip=iproute2 iptables=iptables nsenter=util-linux openssl=openssl sysctl=procps /usr/lib/cni/bridge=containernetworking-plugins
    [ -e /usr/include/seccomp.h ] || need_commands no-such-header=libseccomp-dev
}
