{{/*
A value as a CEL literal. Kubernetes' CEL wants all values of a map, and all items of a list, to be of one type; dyn() makes them so. JSON's quoting of
strings is one that CEL reads.
*/}}
{{- define "debug-sidecar.cel" -}}
{{- if kindIs "map" . -}}
{
{{- $first := true -}}
{{- range $key, $value := . -}}
{{- if not $first }}, {{ end -}}{{- $first = false -}}
{{- toJson $key }}: dyn({{ include "debug-sidecar.cel" $value }})
{{- end -}}
}
{{- else if kindIs "slice" . -}}
[
{{- range $index, $item := . -}}
{{- if $index }}, {{ end -}}dyn({{ include "debug-sidecar.cel" $item }})
{{- end -}}
]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}
