{{/*
The chart's own part of the context, from either side: the templates of a service's chart call ours with the service's context, in which our values
are one level down, under the name or the alias of the dependency. Returns JSON {values, name, appVersion, root}; read it with fromJson.
*/}}
{{- define "debug-sidecar.own" -}}
{{- $own := dict -}}
{{- if eq (index (.Chart.Annotations | default dict) "goscope.dev/chart" | toString) "debug-sidecar" -}}
{{- $own = dict "values" .Values "appVersion" .Chart.AppVersion "root" .Chart.IsRoot -}}
{{- else -}}
{{- range $name, $sub := .Subcharts -}}
{{- if eq (index ($sub.Chart.Annotations | default dict) "goscope.dev/chart" | toString) "debug-sidecar" -}}
{{- if $own -}}
{{- fail "debug-sidecar: Chart.yaml lists debug-sidecar twice under dependencies; a chart has it once, and its includes could not tell which one is meant" -}}
{{- end -}}
{{- $own = dict "values" $sub.Values "appVersion" $sub.Chart.AppVersion "root" false -}}
{{- end -}}
{{- end -}}
{{- if not $own -}}
{{- fail "debug-sidecar: Chart.yaml does not list debug-sidecar under dependencies, or a condition there disables it; use the value debug-sidecar.enabled instead" -}}
{{- end -}}
{{- end -}}
{{- toJson $own -}}
{{- end -}}

{{- define "debug-sidecar.fullname" -}}
{{- $values := (include "debug-sidecar.own" . | fromJson).values -}}
{{- $name := $values.nameOverride | default "debug-sidecar" -}}
{{- if $values.fullnameOverride -}}
{{- $values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "debug-sidecar.labels" -}}
{{- $own := include "debug-sidecar.own" . | fromJson -}}
app.kubernetes.io/name: {{ $own.values.nameOverride | default "debug-sidecar" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ $own.appVersion | quote }}
app.kubernetes.io/component: goscope
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "debug-sidecar.image" -}}
{{- $own := include "debug-sidecar.own" . | fromJson -}}
{{- $image := $own.values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $own.appVersion) -}}
{{- end -}}
{{- end -}}

{{/* A size such as 64MiB, 512Mi or 1Gi in MiB. */}}
{{- define "debug-sidecar.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- if contains "Gi" . -}}{{- mul $number 1024 -}}{{- else -}}{{- $number -}}{{- end -}}
{{- end -}}
