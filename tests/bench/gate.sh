# Shared by the rows about the gate: the same application behind goscope, nginx and HAProxy, each on one core.
# The application is another nginx, because it costs the load's core the least.
# shellcheck shell=bash disable=SC2034,SC2154 # the row and run.sh set and read these

app_port=27060
ours_port=27061
nginx_port=27062
haproxy_port=27063
metrics_port=27064

start_gates() {
    need nginx nginx '1.22.1-*'
    need haproxy haproxy '2.6.12-*'
    need wrk wrk '4.1.0-*'
    need curl curl '7.88.1-*'
    [ "$(nproc)" -ge 2 ] || fail "needs two cores: one for the proxy, one for the load"
    local build=$root/target/x86_64-unknown-linux-gnu/release
    say "   building"
    ${CARGO:-cargo} build --quiet --release -p goscope --bin goscope
    token=$("$build/goscope" token new --name bench --tier basic,cmdline --file "$work/tokens.yaml" 2>/dev/null)
    credential="Authorization: Basic $(printf 'bench:%s' "$token" | base64 -w0)"

    head -c $((64 << 20)) /dev/urandom >"$work/body"
    mkdir -p "$work/app" "$work/nginx"
    chmod 644 "$work/body"
    local file
    for file in app.nginx.conf peer.nginx.conf peer.haproxy.cfg peer.goscope.yaml; do
        sed -e "s|@WORK@|$work|g" -e "s|@TOKEN@|$token|g" -e "s|@APP@|127.0.0.1:$app_port|g" -e "s|@NGINX@|127.0.0.1:$nginx_port|g" \
            -e "s|@HAPROXY@|127.0.0.1:$haproxy_port|g" -e "s|@GOSCOPE@|127.0.0.1:$ours_port|g" -e "s|@METRICS@|127.0.0.1:$metrics_port|g" "$bench/peers/$file" >"$work/$file"
    done
    # {PLAIN} is the cheapest hash that nginx knows.
    printf 'bench:{PLAIN}%s\n' "$token" >"$work/htpasswd"

    background "$load_core" nginx -p "$work/app" -c "$work/app.nginx.conf"
    background "$proxy_core" "$build/goscope" agent --config "$work/peer.goscope.yaml"
    goscope_pid=$started
    background "$proxy_core" nginx -p "$work/nginx" -c "$work/peer.nginx.conf"
    nginx_pid=$started
    background "$proxy_core" haproxy -db -f "$work/peer.haproxy.cfg"
    haproxy_pid=$started
    local port
    for port in $app_port $ours_port $nginx_port $haproxy_port; do
        wait_port "$port"
    done
}

port_of() {
    case $1 in
    goscope) echo $ours_port ;;
    nginx) echo $nginx_port ;;
    haproxy) echo $haproxy_port ;;
    esac
}

# check_same PATH SHA256: every contender refuses without the token and gives the same bytes with it.
check_same() {
    local contender port status sum
    for contender in "${contenders[@]}"; do
        port=$(port_of "$contender")
        status=$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port$1")
        [ "$status" = 401 ] || fail "$contender answers $status without a token"
        status=$(curl -s -o "$work/got" -w '%{http_code}' -H "$credential" "http://127.0.0.1:$port$1")
        [ "$status" = 200 ] || fail "$contender answers $status with the token"
        sum=$(sha256sum <"$work/got" | cut -d' ' -f1)
        [ "$sum" = "$2" ] || fail "$contender gives other bytes"
    done
    rm -f "$work/got"
}

memory() {
    local pid=$1_pid
    peak_kib "${!pid}"
}
