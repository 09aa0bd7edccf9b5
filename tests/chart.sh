# The chart: rendered by Helm 3 and Helm 4, compared with what is expected, never installed. Sourced by tests/run.sh, which has built goscope.
#
# CHART_WRITE=1 writes tests/chart/golden, deploy/manifests and the chart's copies of alerts and dashboard again instead of comparing them.
# shellcheck shell=bash
# shellcheck disable=SC2154 # cache and GOSCOPE_BIN are the caller's

helm_releases=(3.22.0 4.3.1)
# What the charts are rendered for; a helm that was not built by its Makefile would say 1.20.
kubernetes=1.36.0
# What a cluster serves besides, where that is what a check is about.
served=()

# need_helm: each release, kept outside the tree by version.
need_helm() {
    local release folder
    for release in "${helm_releases[@]}"; do
        folder=$cache/tools/helm-$release
        if [ ! -x "$folder/helm" ]; then
            say "building Helm $release"
            mkdir -p "$folder"
            GOBIN=$folder CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "helm.sh/helm/v${release%%.*}/cmd/helm@v$release"
        fi
    done
}

# with_helm RELEASE ARGUMENT…
with_helm() {
    local release=$1
    shift
    HELM_CONFIG_HOME=$chart_work/helm/config HELM_DATA_HOME=$chart_work/helm/data HELM_CACHE_HOME=$chart_work/helm/cache \
        "$cache/tools/helm-$release/helm" "$@"
}

chart_failures=0
fails() {
    say "FAILED: $*"
    chart_failures=$((chart_failures + 1))
}

# render RELEASE NAME CHART VALUE…: without empty lines, of which the two Helms leave different numbers.
render() {
    local release=$1 name=$2 chart=$3 value sets=()
    shift 3
    for value in "$@"; do sets+=(--set-json "$value"); done
    with_helm "$release" template "$name" "$chart" --namespace shop --kube-version "$kubernetes" "${served[@]/#/--api-versions=}" "${sets[@]}" | sed '/^[[:space:]]*$/d'
}

# same EXPECTED ACTUAL: or written again.
same() {
    if [ -n "${CHART_WRITE:-}" ]; then
        cp "$2" "$1"
    elif ! diff -u "$1" "$2" >&2; then
        fails "$1 is not what the chart renders; CHART_WRITE=1 tests/run.sh chart writes it again"
    fi
}

# golden NAME RELEASE-NAME CHART VALUE…: both Helms, twice, the same as the file.
golden() {
    local name=$1 release
    shift
    for release in "${helm_releases[@]}"; do
        render "$release" "$@" >"$chart_work/$name.$release" || fails "$name: Helm $release does not render it"
    done
    render "${helm_releases[0]}" "$@" >"$chart_work/$name.again"
    cmp -s "$chart_work/$name.again" "$chart_work/$name.${helm_releases[0]}" || fails "$name: rendered twice it is not the same"
    cmp -s "$chart_work/$name.${helm_releases[0]}" "$chart_work/$name.${helm_releases[1]}" || fails "$name: the two Helms differ"
    same "tests/chart/golden/$name.yaml" "$chart_work/$name.${helm_releases[0]}"
}

# refused PART CHART VALUE…: the message of either Helm holds PART, which names the value.
refused() {
    local part=$1 chart=$2 release
    shift 2
    for release in "${helm_releases[@]}"; do
        if render "$release" x "$chart" "$@" >"$chart_work/refused" 2>&1; then
            fails "Helm $release accepts $*"
        elif ! tr '\n' ' ' <"$chart_work/refused" | grep -F -- "$part" >/dev/null; then
            fails "Helm $release on $*: $(cat "$chart_work/refused")"
        fi
    done
}

# manifest NAME RELEASE-NAME CHART VALUE…: deploy/manifests/NAME.yaml, as it is applied by kubectl.
manifest() {
    local name=$1 release=$2 chart=$3 value sets=()
    shift 3
    for value in "$@"; do sets+=(--set "$value"); done
    {
        echo "# Generated from the chart debug-sidecar; CHART_WRITE=1 tests/run.sh chart writes it again."
        with_helm "${helm_releases[1]}" template "$release" "$chart" --kube-version "$kubernetes" --skip-tests "${sets[@]}" |
            sed -e '/^[[:space:]]*$/d' -e '/^# Source: /d' -e 's|managed-by: Helm|managed-by: kubectl|'
    } >"$chart_work/manifest"
    same "deploy/manifests/$name.yaml" "$chart_work/manifest"
}

# config_accepted NAME: the agent's configuration in a golden file.
config_accepted() {
    sed -n '/^  goscope.yaml: |/,/^---/{/goscope.yaml/d;/^---/d;s/^    //;p}' "tests/chart/golden/$1.yaml" >"$chart_work/goscope.yaml"
    [ -s "$chart_work/goscope.yaml" ] || fails "$1 has no configuration"
    "$GOSCOPE_BIN" config check "$chart_work/goscope.yaml" || fails "$1: goscope refuses its configuration"
}

# environment_accepted NAME: the same as environment variables, as injected pods get it, gives the same as the file.
environment_accepted() {
    local variables
    mapfile -t variables < <(grep -o '"GOSCOPE_[A-Z_]*"), "value": dyn("[^"]*")' "tests/chart/golden/$1.yaml" | grep -v GOSCOPE_CONFIG |
        sed 's/"\(GOSCOPE_[A-Z_]*\)"), "value": dyn("\([^"]*\)")/\1=\2/')
    [ ${#variables[@]} -gt 3 ] || fails "$1 has no environment"
    env "${variables[@]}" "$GOSCOPE_BIN" config show >"$chart_work/by-environment" || fails "$1: goscope refuses its environment"
    "$GOSCOPE_BIN" config show "$chart_work/goscope.yaml" | diff -u "$chart_work/by-environment" - >&2 || fails "$1: environment and file differ"
}

# What Prometheus and Grafana get: the files of deploy/, their copies in the chart, what the chart renders of them, and that each series in them exists.
test_monitoring() {
    local shop=$1 file name alert
    for file in alerts.yaml dashboard.json; do
        same "charts/debug-sidecar/files/$file" "deploy/$file"
    done
    promtool check rules deploy/alerts.yaml >"$chart_work/out" 2>&1 || fails "alerts.yaml: $(cat "$chart_work/out")"
    promtool test rules tests/chart/alerts.test.yaml >"$chart_work/out" 2>&1 || fails "alerts.test.yaml: $(cat "$chart_work/out")"
    # Each must be seen firing.
    while read -r alert; do
        grep -qE "alertname(=\"|: )$alert\\b.*(value: 1|exp_alerts)" tests/chart/alerts.test.yaml || fails "alerts.test.yaml: $alert never fires"
        grep -qF "\`$alert\`" deploy/docs/prometheus.md || fails "prometheus.md does not say what to look at for $alert"
    done < <(sed -n 's/^ *- alert: //p' deploy/alerts.yaml)
    for file in alerts.yaml dashboard.json; do
        while read -r name; do
            grep -q "^| \`${name%_bucket}\` " agent/METRICS.md || fails "$file: there is no series $name"
        done < <(expressions "$file" | grep -oE '\b(go|goscope)_[a-z_]+' | sort -u)
    done

    render "${helm_releases[1]}" shop "$shop" 'debug-sidecar.prometheusRule={"enabled":true,"labels":{"release":"prometheus"}}' 'debug-sidecar.dashboard={"enabled":true,"labels":{"grafana_dashboard":"1","team":"shop"}}' >"$chart_work/monitoring"
    sed -n '/^kind: PrometheusRule/,/^---/{/^---/d;p}' "$chart_work/monitoring" >"$chart_work/rule"
    grep -qx '    release: prometheus' "$chart_work/rule" || fails "the PrometheusRule has not the labels that were asked for"
    sed -n '/^spec:/,${/^spec:/d;s/^  //;p}' "$chart_work/rule" | diff -u deploy/alerts.yaml - >&2 || fails "the PrometheusRule is not deploy/alerts.yaml"
    sed -n '/^  goscope.json: |/,/^---/{/goscope.json/d;/^---/d;s/^    //;p}' "$chart_work/monitoring" | diff -u deploy/dashboard.json - >&2 || fails "the ConfigMap is not deploy/dashboard.json"
    for name in '    grafana_dashboard: "1"' '    team: shop'; do
        grep -qxF "$name" "$chart_work/monitoring" || fails "the dashboard's ConfigMap has no label $name"
    done
}

# expressions FILE: what is asked of Prometheus in it.
expressions() {
    case $1 in
    *.yaml) sed -n 's/^ *expr: //p' "deploy/$1" ;;
    *.json) sed -nE 's/^ *"(expr|definition)": "(.*)",?$/\2/p' "deploy/$1" ;;
    esac
}

# Every command of the documentation that needs no cluster, and every block of values, as they stand there.
test_documents() {
    local shop=$1 line name document block
    local release=${helm_releases[1]}
    mkdir -p "$chart_work/reader/bin"
    ln -s "$GOSCOPE_BIN" "$chart_work/reader/bin/goscope"
    for document in deploy/docs/*.md; do
        name=${document##*/}
        while read -r line; do
            case $line in
            "goscope token new"*)
                (cd "$chart_work/reader" && rm -f tokens.yaml && PATH=$PWD/bin:$PATH sh -ec "$line" >token && grep -q '^gsc_' token && grep -q sha256 tokens.yaml) 2>"$chart_work/out" ||
                    fails "$name: $line: $(cat "$chart_work/out")"
                ;;
            "goscope backup "*)
                # In folders of the reader's own.
                mkdir -p "$chart_work/reader/from" "$chart_work/reader/to"
                line=$(sed -E 's/--from [^ ]+/--from from/; s/--to [^ ]+/--to to/' <<<"$line")
                (cd "$chart_work/reader" && PATH=$PWD/bin:$PATH sh -ec "$line" | grep -q '^copied 0 ') 2>"$chart_work/out" ||
                    fails "$name: $line: $(cat "$chart_work/out")"
                ;;
            "goscope ctl "*)
                # It asks an agent, which is among the end-to-end tests; here only whether there is such a command.
                line=${line#goscope ctl }
                "$GOSCOPE_BIN" ctl "${line%% *}" --help >"$chart_work/out" 2>&1 || fails "$name: goscope ctl $line: $(cat "$chart_work/out")"
                ;;
            "helm dependency update") ;; # was run, by test_chart
            "helm upgrade "*)
                # Rendered instead of installed.
                line=$(sed -e 's/^helm upgrade\( --install\)\?/template/' -e 's/ --create-namespace//' -e "s| \. | $shop |" <<<"$line")
                # shellcheck disable=SC2086 # words
                with_helm "$release" $line --kube-version "$kubernetes" >"$chart_work/out" 2>&1 || fails "$name: helm $line: $(cat "$chart_work/out")"
                ;;
            "helm test "* | "helm uninstall "*) ;; # need a cluster, and are among its tests
            helm* | goscope*) fails "$name: nobody tests \"$line\"" ;;
            esac
        done < <(grep -oE '^    (goscope|helm) .*' "$document" | sed 's/^ *//')
        # Blocks of values begin with our name.
        rm -f "$chart_work"/block.*
        awk -v out="$chart_work/block." '/^    debug-sidecar:$/ {n++; on = 1} on && !/^    / {on = 0} on {print substr($0, 5) > (out n)}' "$document"
        for block in "$chart_work"/block.*; do
            [ -e "$block" ] || continue
            with_helm "$release" template shop "$shop" --kube-version "$kubernetes" --values "$block" >"$chart_work/out" 2>&1 || fails "$name: $(cat "$block" "$chart_work/out")"
        done
    done
    # The template lines of the documentation stand in the example, letter by letter but for the indentation of the line itself.
    while read -r line; do
        grep -qF -- "$line" deploy/examples/shop/templates/deployment.yaml || fails "install.md: the example has no line $line"
    done < <(grep -oE '\{\{- include .*\}\}' deploy/docs/install.md)
    # What the documentation quotes of goscope.dev/missing is what the policy says, up to the … of the quotation.
    while read -r line; do
        grep -qF -- "$line" charts/debug-sidecar/templates/policy.yaml || fails "troubleshooting.md: the policy never says \"$line\""
    done < <(grep -oE 'goscope\.dev/missing: [a-z]+: [^|]*`' deploy/docs/troubleshooting.md | sed -E 's/^.*missing: [a-z]+: //; s/.$//; s/ …$//; s/^(.* )?… //')
}

test_chart() {
    local release shop tuned own chart name part value numbers
    chart_work=$(mktemp -d)
    at_exit "rm -rf '$chart_work'"
    own=charts/debug-sidecar
    mkdir -p tests/chart/golden deploy/manifests

    # The example with its dependency, by the command that its users type.
    mkdir -p "$chart_work/deploy/examples" "$chart_work/charts"
    cp -r deploy/examples/shop "$chart_work/deploy/examples/"
    cp -r "$own" "$chart_work/charts/"
    shop=$chart_work/deploy/examples/shop
    with_helm "${helm_releases[0]}" dependency update "$shop" >"$chart_work/out" 2>&1 || fails "dependency: $(cat "$chart_work/out")"

    for release in "${helm_releases[@]}"; do
        for chart in "$own" "$shop"; do
            with_helm "$release" lint --strict --kube-version "$kubernetes" "$chart" >"$chart_work/out" 2>&1 || fails "Helm $release: $(cat "$chart_work/out")"
        done
    done

    tuned='{"gate":{"allow":["127.0.0.0/8","!10.0.0.0/8"],"limits":{"perSource":{"rate":"30/m","burst":1000000},"perIdentity":{"dryRun":true}},"caps":{"cpuSeconds":120}},"store":{"maxBytes":"512MiB","maxAge":"7d","reserveBytes":"32MiB"},"selftest":{"enabled":true,"every":"1h"}}'
    golden subchart-on shop "$shop"
    golden subchart-off shop "$shop" 'debug-sidecar.enabled=false'
    golden subchart-sealed shop "$shop" 'debug-sidecar.sealed.enabled=true' 'debugAddress="unix:///run/goscope/debug.sock"'
    golden subchart-claim shop "$shop" 'debug-sidecar.data={"type":"existingClaim","existingClaim":"evidence"}'
    golden subchart-container shop "$shop" 'debug-sidecar.sidecar.kind="container"' 'debug-sidecar.launcher.delivery="image"'
    golden subchart-all shop "$shop" 'debug-sidecar.podMonitor.enabled=true' 'debug-sidecar.networkPolicy={"enabled":true,"appPorts":[8080,{"port":53,"protocol":"UDP"}]}' \
        'debug-sidecar.data.type="ephemeral"' "debug-sidecar.config=$tuned" 'debug-sidecar.ports={"debug":7061,"metrics":7464}' 'debug-sidecar.target="localhost:7070"'
    golden subchart-tokens shop "$shop" 'debug-sidecar.tokens={"create":true,"secrets":["payments-tokens","search-tokens"]}' 'debug-sidecar.image.pullSecrets=["registry"]'
    golden subchart-remote shop "$shop" 'debug-sidecar.remote={"enabled":true,"secret":"shop-tls","clientCa":true}' 'debug-sidecar.networkPolicy={"enabled":true,"appPorts":[8080],"remoteFrom":[{"namespaceSelector":{"matchLabels":{"team":"shop"}}}]}' \
        'debug-sidecar.config.gate.allow=["127.0.0.0/8","!10.9.0.0/16"]'
    golden subchart-kept shop "$shop" 'debug-sidecar.data={"type":"existingClaim","existingClaim":"evidence"}' 'debug-sidecar.archive.enabled=true' \
        'debug-sidecar.backup={"enabled":true,"claim":"evidence-copies"}' 'debug-sidecar.podSecurityContext={"runAsUser":10001}'
    golden injection goscope "$own"
    golden injection-remote goscope "$own" 'remote.enabled=true' 'tokens.secrets=["payments-tokens"]'
    golden archive goscope "$own" 'injection.enabled=false' 'archive={"enabled":true,"claim":"evidence"}' 'tokens.create=true'
    golden injection-tuned goscope "$own" "config=$tuned" 'ports={"debug":7061,"metrics":7464}' 'target="localhost:7070"' 'data={"type":"ephemeral"}' \
        'podMonitor.enabled=true' 'injection.failurePolicy="Fail"' 'launcher.delivery="image"'
    golden injection-some goscope "$own" 'injection.namespaces=["shop","search"]' 'podMonitor.enabled=true' 'sealed.enabled=true' 'sidecar.resources={"limits":{"memory":"32Mi"}}' 'remote.allow=["!10.9.8.7","::ffff:10.0.0.0/104","fe80::1"]'
    golden injection-off goscope "$own" enabled=false
    [ ! -s tests/chart/golden/injection-off.yaml ] || fails "switched off, the chart renders something"
    ! grep -q goscope tests/chart/golden/subchart-off.yaml || fails "switched off, something of goscope is left in the service"

    # For people without Helm.
    manifest injection goscope "$own"
    manifest shop shop "$shop"
    manifest archive goscope "$own" injection.enabled=false archive.enabled=true archive.claim=goscope-data
    manifest backup goscope "$own" injection.enabled=false data.type=existingClaim data.existingClaim=goscope-data backup.enabled=true backup.claim=goscope-backup

    for name in subchart-on subchart-sealed subchart-claim subchart-container subchart-tokens subchart-remote subchart-all; do config_accepted "$name"; done
    environment_accepted injection-tuned
    test_monitoring "$shop"

    # Every setting of the agent may be made under config, but for those that the chart makes itself.
    {
        echo "config:"
        awk '/^[a-z]/ {on = !/^(target|listen|intake):/} on && !/^ *(#|tokens:|files:|path:)/ {print "  " $0}' deploy/goscope.yaml
    } >"$chart_work/settings.yaml"
    with_helm "${helm_releases[1]}" template goscope "$own" --kube-version "$kubernetes" --set data.type=ephemeral --values "$chart_work/settings.yaml" >"$chart_work/out" 2>&1 ||
        fails "config: $(grep -v "^$" "$chart_work/out" | head -20)"

    # A value that is wrong is named.
    while IFS='|' read -r part value; do
        refused "$part" "$own" "$value"
    done <tests/chart/refused.txt
    refused "data.existingClaim must name" "$own" 'data.type="existingClaim"'
    refused "ports.debug, ports.metrics and ports.remote must differ" "$own" 'ports.debug=9464'
    refused "ports.debug, ports.metrics and ports.remote must differ" "$own" 'ports.remote=6061'
    refused "is a port that goscope listens on itself" "$own" 'target="localhost:6061/"'
    refused "is a port that goscope listens on itself" "$own" 'target="[::1]:6062"' 'remote.enabled=true'
    refused "which is tokens.secret already" "$own" 'tokens.secrets=["goscope-tokens"]'
    refused "must be another Secret than tokens.secret" "$shop" 'debug-sidecar.tokens={"create":true,"secret":"goscope-token"}'
    refused "injected pods look for the Secret in their own namespaces" "$own" 'tokens.create=true'
    refused "archive.claim must name" "$shop" 'debug-sidecar.archive.enabled=true'
    refused "set data.type=existingClaim" "$shop" 'debug-sidecar.backup={"enabled":true,"claim":"copies"}'
    refused "backup.claim must name" "$shop" 'debug-sidecar.backup.enabled=true' 'debug-sidecar.data={"type":"existingClaim","existingClaim":"evidence"}'
    refused "another one than data.existingClaim" "$shop" 'debug-sidecar.backup={"enabled":true,"claim":"evidence"}' 'debug-sidecar.data={"type":"existingClaim","existingClaim":"evidence"}'
    refused "at least four times spool.perRun" "$own" 'spool.perRun="256MiB"'
    refused "at least twice config.store.maxBytes" "$own" 'config.store.maxBytes="1GiB"'
    refused "would know neither the pods nor their ports" "$own" 'networkPolicy.enabled=true'
    refused "networkPolicy.appPorts must list" "$shop" 'debug-sidecar.networkPolicy.enabled=true'
    refused "adds a native sidecar only" "$own" 'sidecar.kind="container"'
    kubernetes=1.28.0 refused "set sidecar.kind=container" "$shop" enabled=true
    kubernetes=1.32.0 refused "set launcher.delivery=copy" "$shop" 'debug-sidecar.launcher.delivery="image"'

    # Injection takes the version that the cluster serves, and says so where it serves none.
    served=(admissionregistration.k8s.io/v1/ValidatingWebhookConfiguration)
    refused "does not serve MutatingAdmissionPolicy" "$own" enabled=true
    served+=(admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy)
    for release in "${helm_releases[@]}"; do
        render "$release" goscope "$own" enabled=true >"$chart_work/beta"
        [ "$(grep -c 'admissionregistration.k8s.io/v1beta1$' "$chart_work/beta")" = 2 ] || fails "Helm $release: not v1beta1"
        sed 's|k8s.io/v1beta1$|k8s.io/v1|' "$chart_work/beta" | cmp -s - tests/chart/golden/injection.yaml || fails "Helm $release: v1beta1 differs in more than its name"
    done
    served=()

    test_documents "$shop"

    # Under an alias the templates find their values too.
    sed -i 's|^    version: 0.1.0|&\n    alias: recorder|' "$shop/Chart.yaml"
    rm -rf "$shop/charts" "$shop/Chart.lock"
    with_helm "${helm_releases[0]}" dependency update "$shop" >"$chart_work/out" 2>&1 || fails "alias: $(cat "$chart_work/out")"
    for release in "${helm_releases[@]}"; do
        if ! render "$release" shop "$shop" 'recorder.logLevel="trace"' >"$chart_work/out" 2>&1 || ! grep -q 'value: "trace"' "$chart_work/out"; then
            fails "Helm $release, alias: $(cat "$chart_work/out")"
        fi
    done


    # Twice they could not tell whose.
    sed -i '/^    alias: recorder$/{p;s|.*|    repository: file://../../../charts/debug-sidecar\n  - name: debug-sidecar\n    version: 0.1.0\n    alias: second|}' "$shop/Chart.yaml"
    with_helm "${helm_releases[0]}" dependency update "$shop" >"$chart_work/out" 2>&1 || fails "two aliases: $(cat "$chart_work/out")"
    refused "lists debug-sidecar twice" "$shop" 'recorder.logLevel="trace"'

    # Names that look like numbers stay names.
    numbers='data={"type":"existingClaim","existingClaim":"123"}'
    render "${helm_releases[1]}" 7 "$own" "$numbers" 'fullnameOverride="1e3"' 'nameOverride="5"' 'tokens={"secret":"456","secrets":["789"]}' 'remote={"enabled":true,"secret":"12"}' \
        'image.pullSecrets=["34"]' 'archive.enabled=true' 'backup={"enabled":true,"claim":"56"}' 'podMonitor.enabled=true' 'prometheusRule.enabled=true' 'injection.enabled=false' >"$chart_work/numbers" ||
        fails "names that look like numbers are refused"
    ! grep -nE '(^|[ -])[a-zA-Z./]*([nN]ame|instance): [0-9.e]+$' "$chart_work/numbers" >&2 || fails "a name is rendered as a number"

    [ "$chart_failures" = 0 ] || die "$chart_failures checks of the chart failed"
    say "the chart renders as expected with Helm ${helm_releases[*]}"
}
