{{/* Names: at most 63 characters, as DNS labels are. */}}
{{- define "ptft.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ptft.fullname" -}}
{{- $name := include "ptft.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Of an object beside the service: (list . "ask") is NAME-ask. 52: a CronJob adds 11 to its own. */}}
{{- define "ptft.nameOf" -}}
{{- $suffix := printf "-%s" (last .) -}}
{{ include "ptft.fullname" (first .) | trunc (int (sub 52 (len $suffix))) | trimSuffix "-" }}{{ $suffix }}
{{- end }}

{{- define "ptft.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "ptft.fullname" .) "default") }}
{{- end }}

{{/* By which pods are selected: (list . "server"). The component keeps every other pod of the
     release out of the Service and the budgets. */}}
{{- define "ptft.labelsOf" -}}
app.kubernetes.io/name: {{ include "ptft.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{- define "ptft.selectorLabels" -}}
{{ include "ptft.labelsOf" (list . "server") }}
{{- end }}

{{- define "ptft.testLabels" -}}
{{ include "ptft.labelsOf" (list . "test") }}
{{- end }}

{{/* Which image this is: its tag, or the head of its digest. */}}
{{- define "ptft.version" -}}
{{- with .Values.image -}}
{{ .tag | default (.digest | empty | ternary $.Chart.AppVersion (.digest | replace ":" "-" | trunc 19)) | trunc 63 | trimAll "-_." }}
{{- end }}
{{- end }}

{{- define "ptft.commonLabels" -}}
app.kubernetes.io/version: {{ include "ptft.version" . | quote }}
app.kubernetes.io/part-of: ptft
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ptft.labels" -}}
{{ include "ptft.selectorLabels" . }}
{{ include "ptft.commonLabels" . }}
{{- end }}

{{/* metadata of an object: (list . NAME COMPONENT LABELS ANNOTATIONS); own labels win. */}}
{{- define "ptft.metadata" -}}
{{- $root := index . 0 -}}
{{- $labels := fromYaml (include "ptft.labelsOf" (list $root (index . 2))) -}}
{{- $labels = merge $labels (index . 3) (fromYaml (include "ptft.commonLabels" $root)) -}}
name: {{ index . 1 }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with merge (deepCopy (index . 4)) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A digest names the bytes, a tag only where they were last seen. */}}
{{- define "ptft.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
