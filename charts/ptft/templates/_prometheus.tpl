{{/* By which labels Prometheus has the release's series. */}}
{{- define "ptft.selector" -}}
{{ .Values.metrics.selector | default (printf "namespace=%q,job=%q" .Release.Namespace (include "ptft.fullname" .)) }}
{{- end }}

{{/* Seconds of work that all pods together have admitted; 0 where there is no pod. */}}
{{- define "ptft.workQuery" -}}
sum(ptft_work_seconds{ {{- include "ptft.selector" . -}} }) or vector(0)
{{- end }}

{{/* The share of bad requests at which an hour's budget burns too fast: (list OBJECTIVE FACTOR).
     Never above what can be. */}}
{{- define "ptft.burn" -}}
{{ minf (mulf (last .) (subf 1 (first .))) 0.99 }}
{{- end }}

{{/* (list RULES SEVERITY SUMMARY) */}}
{{- define "ptft.alert" -}}
labels:
  severity: {{ index . 1 }}
  {{- with (index . 0).alertLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  summary: {{ index . 2 | quote }}
{{- end }}
