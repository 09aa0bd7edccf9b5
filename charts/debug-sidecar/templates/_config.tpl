{{/* The agent's configuration as the values mean it, as YAML. */}}
{{- define "debug-sidecar.config" -}}
{{- include "debug-sidecar.check" . -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- $target := $values.target -}}
{{- if $values.sealed.enabled -}}
{{- $target = printf "unix:///run/goscope/%s" $values.sealed.socket -}}
{{- end -}}
{{- $store := $values.config.store | default dict -}}
{{- if and (eq $values.data.type "emptyDir") (not $store.maxBytes) -}}
{{- $store = merge (dict "maxBytes" "256MiB") $store -}}
{{- end -}}
{{- $listen := dict "debug" (printf "127.0.0.1:%d" (int $values.ports.debug)) "metrics" (printf "0.0.0.0:%d" (int $values.ports.metrics)) -}}
{{- $gate := deepCopy ($values.config.gate | default dict) -}}
{{- if $values.remote.enabled -}}
{{- $tls := dict "cert" "/etc/goscope/tls/tls.crt" "key" "/etc/goscope/tls/tls.key" -}}
{{- if $values.remote.clientCa -}}{{- $_ := set $tls "clientCa" "/etc/goscope/tls/ca.crt" -}}{{- end -}}
{{- $_ := set $listen "remote" (dict "address" (printf "0.0.0.0:%d" (int $values.ports.remote)) "tls" $tls) -}}
{{- /* What config.gate.allow says comes first, its refusals too; without it, what the agent's own default admits. */}}
{{- $_ := set $gate "allow" (concat ($gate.allow | default (list "127.0.0.0/8" "::1/128")) $values.remote.allow) -}}
{{- end -}}
{{- if $values.tokens.secrets -}}
{{- $files := list "/etc/goscope/tokens/*.yaml" -}}
{{- range $values.tokens.secrets -}}{{- $files = append $files (printf "/etc/goscope/teams/%s/*.yaml" .) -}}{{- end -}}
{{- $_ := set $gate "tokens" (dict "files" $files) -}}
{{- end -}}
{{- $config := dict "target" (dict "address" $target) "listen" $listen -}}
{{- if $gate }}{{- $_ := set $config "gate" $gate -}}{{- end -}}
{{- if $store }}{{- $config = merge $config (dict "store" $store) -}}{{- end -}}
{{- with $values.config.selftest }}{{- $_ := set $config "selftest" . -}}{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* What no schema can see because it compares two values, and what this cluster cannot do. */}}
{{- define "debug-sidecar.check" -}}
{{- $own := include "debug-sidecar.own" . | fromJson -}}
{{- $values := $own.values -}}
{{- if ne 3 (list (int $values.ports.debug) (int $values.ports.metrics) (int $values.ports.remote) | uniq | len) -}}
{{- fail "debug-sidecar: ports.debug, ports.metrics and ports.remote must differ" -}}
{{- end -}}
{{- if not $values.sealed.enabled -}}
{{- $port := regexFind "[0-9]+/?$" $values.target | trimSuffix "/" | int -}}
{{- $own := list (int $values.ports.debug) (int $values.ports.metrics) -}}
{{- if $values.remote.enabled -}}{{- $own = append $own (int $values.ports.remote) -}}{{- end -}}
{{- if has $port $own -}}
{{- fail (printf "debug-sidecar: target (%s) is a port that goscope listens on itself, by ports.debug, ports.metrics or ports.remote; it must be the app's" $values.target) -}}
{{- end -}}
{{- end -}}
{{- if has $values.tokens.secret $values.tokens.secrets -}}
{{- fail (printf "debug-sidecar: tokens.secrets lists %s, which is tokens.secret already" $values.tokens.secret) -}}
{{- end -}}
{{- if and $values.tokens.create (eq $values.tokens.secret $values.tokens.created.clearSecret) -}}
{{- fail "debug-sidecar: tokens.created.clearSecret must be another Secret than tokens.secret, which is mounted into pods" -}}
{{- end -}}
{{- if and $values.tokens.create $own.root (not $values.archive.enabled) -}}
{{- fail "debug-sidecar: tokens.create is for a chart that has debug-sidecar as a dependency, or for an archive; injected pods look for the Secret in their own namespaces" -}}
{{- end -}}
{{- if and $values.archive.enabled (not (include "debug-sidecar.archiveClaim" $values)) -}}
{{- fail "debug-sidecar: archive.claim must name the PersistentVolumeClaim that the archive serves, unless data.type is existingClaim and names it" -}}
{{- end -}}
{{- if and $values.backup.enabled (or (ne $values.data.type "existingClaim") (not $values.data.existingClaim)) -}}
{{- fail "debug-sidecar: backup copies a PersistentVolumeClaim; set data.type=existingClaim and data.existingClaim" -}}
{{- end -}}
{{- if and $values.backup.enabled (or (not $values.backup.claim) (eq $values.backup.claim $values.data.existingClaim)) -}}
{{- fail "debug-sidecar: backup.claim must name the PersistentVolumeClaim that the copies go to, another one than data.existingClaim" -}}
{{- end -}}
{{- $perRun := include "debug-sidecar.mebibytes" $values.spool.perRun | int64 -}}
{{- if lt (include "debug-sidecar.mebibytes" $values.spool.sizeLimit | int64) (mul 4 $perRun) -}}
{{- fail (printf "debug-sidecar: spool.sizeLimit (%s) must be at least four times spool.perRun (%s), or the kubelet may evict the pod" $values.spool.sizeLimit $values.spool.perRun) -}}
{{- end -}}
{{- if eq $values.data.type "emptyDir" -}}
{{- $maxBytes := dig "store" "maxBytes" "256MiB" $values.config -}}
{{- if lt (include "debug-sidecar.mebibytes" $values.data.sizeLimit | int64) (mul 2 (include "debug-sidecar.mebibytes" $maxBytes | int64)) -}}
{{- fail (printf "debug-sidecar: data.sizeLimit (%s) must be at least twice config.store.maxBytes (%s), or the kubelet may evict the pod" $values.data.sizeLimit $maxBytes) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.data.type "existingClaim") (not $values.data.existingClaim) -}}
{{- fail "debug-sidecar: data.type is existingClaim, so data.existingClaim must name a PersistentVolumeClaim of the pod's namespace" -}}
{{- end -}}
{{- if and (eq $values.sidecar.kind "native") (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "debug-sidecar: Kubernetes %s has no native sidecars (1.29); set sidecar.kind=container" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $values.launcher.delivery "image") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "debug-sidecar: Kubernetes %s has no image volumes (1.33 with its gate on, 1.35); set launcher.delivery=copy" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $own.root -}}
{{- fail "debug-sidecar: networkPolicy is for a chart that has debug-sidecar as a dependency; installed by itself it would know neither the pods nor their ports" -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.appPorts) -}}
{{- fail "debug-sidecar: networkPolicy.appPorts must list the ports of your own containers, or the policy would cut them off" -}}
{{- end -}}
{{- end -}}

{{/*
The same configuration as environment variables, for injected pods, whose namespaces have no ConfigMap of ours. A JSON list of {name, value}. A list's
items are separated by commas, which is how the agent reads them.
*/}}
{{- define "debug-sidecar.environment" -}}
{{- $env := list -}}
{{- range $entry := include "debug-sidecar.flat" (dict "prefix" "GOSCOPE" "value" (include "debug-sidecar.config" . | fromYaml)) | trim | splitList "\n" -}}
{{- $pair := splitn "=" 2 $entry -}}
{{- $env = append $env (dict "name" $pair._0 "value" $pair._1) -}}
{{- end -}}
{{- toJson $env -}}
{{- end -}}

{{- define "debug-sidecar.flat" -}}
{{- $prefix := .prefix -}}
{{- range $key, $value := .value -}}
{{- $name := printf "%s_%s" $prefix (snakecase $key | upper) -}}
{{- if kindIs "map" $value -}}
{{- include "debug-sidecar.flat" (dict "prefix" $name "value" $value) -}}
{{- else if kindIs "slice" $value -}}
{{- printf "%s=%s\n" $name (join "," $value) -}}
{{- else if kindIs "float64" $value -}}
{{- printf "%s=%d\n" $name (int64 $value) -}}
{{- else -}}
{{- printf "%s=%v\n" $name $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The claim that the archive serves, empty if nothing names it. Takes the values. */}}
{{- define "debug-sidecar.archiveClaim" -}}
{{- if .archive.claim -}}
{{- .archive.claim -}}
{{- else if eq .data.type "existingClaim" -}}
{{- .data.existingClaim -}}
{{- end -}}
{{- end -}}
