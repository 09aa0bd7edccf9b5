{{/*
What a service's chart includes, each with the service's own context:

    spec.template.metadata.annotations      debug-sidecar.podAnnotations
    spec.template.spec.initContainers       debug-sidecar.initContainers
    spec.template.spec.containers           debug-sidecar.containers       only with sidecar.kind=container
    spec.template.spec.volumes              debug-sidecar.volumes
    the app's container, volumeMounts       debug-sidecar.volumeMounts     for the recorder and for sealed mode
    the app's container, command            debug-sidecar.launcher         for the recorder: before the app's own words

With enabled=false each renders to nothing.
*/}}

{{- define "debug-sidecar.podAnnotations" -}}
{{- $own := include "debug-sidecar.own" . | fromJson -}}
{{- if $own.values.enabled -}}
goscope.dev/injected: {{ $own.appVersion | quote }}
{{/* A changed configuration makes the Deployment start its pods again. */}}
{{- printf "goscope.dev/config-checksum: %s" (include "debug-sidecar.config" . | sha256sum) }}
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.initContainers" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if $values.enabled -}}
{{- include "debug-sidecar.check" . -}}
{{- if eq $values.sidecar.kind "native" -}}
{{- include "debug-sidecar.agent" (dict "context" . "env" (include "debug-sidecar.configFile" . | fromJsonArray)) }}
{{ end -}}
{{- include "debug-sidecar.install" . -}}
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.containers" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if and $values.enabled (eq $values.sidecar.kind "container") -}}
{{- include "debug-sidecar.agent" (dict "context" . "env" (include "debug-sidecar.configFile" . | fromJsonArray)) -}}
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.volumes" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if $values.enabled -}}
{{ include "debug-sidecar.commonVolumes" . }}
- name: goscope-config
  configMap:
    name: {{ include "debug-sidecar.fullname" . | quote }}
    # Optional: a pod of before that must move to another node after an upgrade has switched goscope off would wait for it.
    optional: true
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.volumeMounts" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if $values.enabled -}}
- name: goscope-bin
  mountPath: /var/lib/goscope/bin
  readOnly: true
- name: goscope-spool
  mountPath: /var/lib/goscope/spool
{{- if $values.sealed.enabled }}
- name: goscope-run
  mountPath: /run/goscope
{{- end }}
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.launcher" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if $values.enabled -}}
- /var/lib/goscope/bin/goscope
- exec
- --spool=/var/lib/goscope/spool
- --spool-max={{ $values.spool.perRun }}
- --
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.configFile" -}}
{{- list (dict "name" "GOSCOPE_CONFIG" "value" "/etc/goscope/config/goscope.yaml") | toJson -}}
{{- end -}}

{{/* What the agent is told in any case: how much to log, and which pod it is in, which it writes beside each incident. */}}
{{- define "debug-sidecar.podEnvironment" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
- name: GOSCOPE_LOG
  value: {{ $values.logLevel | quote }}
{{- range $part, $path := dict "NAME" "metadata.name" "NAMESPACE" "metadata.namespace" "UID" "metadata.uid" "NODE" "spec.nodeName" }}
- name: GOSCOPE_POD_{{ $part }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $path }}
{{- end }}
{{- end -}}

{{- define "debug-sidecar.securityContext" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- $hardened := dict
  "allowPrivilegeEscalation" false
  "capabilities" (dict "drop" (list "ALL"))
  "readOnlyRootFilesystem" true
  "runAsNonRoot" true
  "seccompProfile" (dict "type" "RuntimeDefault")
-}}
{{- toYaml (mergeOverwrite $hardened $values.sidecar.securityContext) -}}
{{- end -}}

{{/* The agent's container. Takes {context, env}: env says where its configuration is. */}}
{{- define "debug-sidecar.agent" -}}
{{- $context := .context -}}
{{- $values := (include "debug-sidecar.own" $context | fromJson).values -}}
{{- $isFile := eq (index .env 0).name "GOSCOPE_CONFIG" -}}
- name: goscope
  image: {{ include "debug-sidecar.image" $context | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args: [agent]
  {{- if eq $values.sidecar.kind "native" }}
  restartPolicy: Always
  {{- end }}
  env:
    {{- range .env }}
    - name: {{ .name }}
      value: {{ .value | quote }}
    {{- end }}
    {{- include "debug-sidecar.podEnvironment" $context | nindent 4 }}
  ports:
    - name: goscope-debug
      containerPort: {{ int $values.ports.debug }}
      protocol: TCP
    - name: goscope-metrics
      containerPort: {{ int $values.ports.metrics }}
      protocol: TCP
    {{- if $values.remote.enabled }}
    - name: goscope-remote
      containerPort: {{ int $values.ports.remote }}
      protocol: TCP
    {{- end }}
  # Only on itself. A startup or readiness probe would hold up the app, or take it out of its Service.
  livenessProbe:
    httpGet:
      path: /livez
      port: goscope-metrics
    periodSeconds: 20
    timeoutSeconds: 5
    failureThreshold: 3
  resources:
    {{- toYaml $values.sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "debug-sidecar.securityContext" $context | nindent 4 }}
  volumeMounts:
    - name: goscope-spool
      mountPath: /var/lib/goscope/spool
    - name: goscope-data
      mountPath: /var/lib/goscope/data
    {{- include "debug-sidecar.tokenMounts" $context | nindent 4 }}
    {{- if $values.remote.enabled }}
    - name: goscope-tls
      mountPath: /etc/goscope/tls
      readOnly: true
    {{- end }}
    {{- if $isFile }}
    - name: goscope-config
      mountPath: /etc/goscope/config
      readOnly: true
    {{- end }}
    {{- if $values.sealed.enabled }}
    - name: goscope-run
      mountPath: /run/goscope
    {{- end }}
{{- end -}}

{{/*
What the agent states where a container of the pod has a limit for ephemeral storage: the kubelet counts emptyDirs against the sum of these limits, and evicts the pod
that exceeds it. So our volumes bring their own part. What sidecar.resources says of it stands.
*/}}
{{- define "debug-sidecar.countedResources" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- $mebibytes := include "debug-sidecar.mebibytes" $values.spool.sizeLimit | int64 -}}
{{- if eq $values.data.type "emptyDir" -}}
{{- $mebibytes = add $mebibytes (include "debug-sidecar.mebibytes" $values.data.sizeLimit | int64) -}}
{{- end -}}
{{- /* The launcher's copy and what the agent logs. */}}
{{- $part := dict "ephemeral-storage" (printf "%dMi" (add $mebibytes 64)) -}}
{{- $resources := deepCopy $values.sidecar.resources -}}
{{- if not (hasKey ($resources.limits | default dict) "ephemeral-storage") -}}
{{- $resources = merge (dict "limits" (deepCopy $part) "requests" $part) $resources -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "debug-sidecar.install" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- if eq $values.launcher.delivery "copy" -}}
- name: goscope-install
  image: {{ include "debug-sidecar.image" . | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  args: [install, /var/lib/goscope/bin]
  resources:
    {{- toYaml $values.sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "debug-sidecar.securityContext" . | nindent 4 }}
  volumeMounts:
    - name: goscope-bin
      mountPath: /var/lib/goscope/bin
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.commonVolumes" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
- name: goscope-bin
  {{- if eq $values.launcher.delivery "image" }}
  image:
    reference: {{ include "debug-sidecar.image" . | quote }}
    pullPolicy: {{ $values.image.pullPolicy }}
  {{- else }}
  emptyDir:
    sizeLimit: 64Mi
  {{- end }}
- name: goscope-spool
  emptyDir:
    sizeLimit: {{ $values.spool.sizeLimit }}
- name: goscope-data
  {{- if eq $values.data.type "existingClaim" }}
  persistentVolumeClaim:
    claimName: {{ $values.data.existingClaim | quote }}
  {{- else if eq $values.data.type "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: {{ toJson $values.data.ephemeral.accessModes }}
        {{- with $values.data.ephemeral.storageClassName }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ $values.data.ephemeral.size }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $values.data.sizeLimit }}
  {{- end }}
{{ include "debug-sidecar.tokenVolumes" . }}
{{- if $values.remote.enabled }}
- name: goscope-tls
  secret:
    secretName: {{ $values.remote.secret | quote }}
    optional: true
{{- end }}
{{- if $values.sealed.enabled }}
- name: goscope-run
  emptyDir:
    sizeLimit: 1Mi
{{- end }}
{{- end -}}

{{/* The Secrets with token files. */}}
{{- define "debug-sidecar.tokenVolumes" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
# Optional: a pod without it runs, and the gate refuses everybody until the Secret is there.
- name: goscope-tokens
  secret:
    secretName: {{ $values.tokens.secret | quote }}
    optional: true
{{- range $index, $secret := $values.tokens.secrets }}
- name: goscope-tokens-{{ $index }}
  secret:
    secretName: {{ $secret | quote }}
    optional: true
{{- end }}
{{- end -}}

{{- define "debug-sidecar.tokenMounts" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
- name: goscope-tokens
  mountPath: /etc/goscope/tokens
  readOnly: true
{{- range $index, $secret := $values.tokens.secrets }}
- name: goscope-tokens-{{ $index }}
  mountPath: /etc/goscope/teams/{{ $secret }}
  readOnly: true
{{- end }}
{{- end -}}

{{/* Pods of the chart's own: nothing is injected into them. Takes {context, part}; by the part they are selected. */}}
{{- define "debug-sidecar.podMetadata" -}}
labels:
  {{- include "debug-sidecar.labels" .context | nindent 2 }}
  goscope.dev/part: {{ .part }}
annotations:
  goscope.dev/inject: disabled
{{- end -}}

{{- define "debug-sidecar.pullSecrets" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- with $values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end -}}
{{- end -}}
