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

{{/* When the newest Job of each kind was made that ended so, by kube-state-metrics: (list ROOT
     SERIES). job_name is the name of its CronJob, or of a Job without its hash. */}}
{{- define "ptft.newestJob" -}}
{{- $root := first . -}}
{{- $name := include "ptft.fullname" $root -}}
{{- $which := printf "namespace=%q,job_name=~%q" $root.Release.Namespace (printf "%s-(cache|train|embed)(-.*)?" $name) -}}
max by (job_name) (label_replace(kube_job_created{ {{- $which -}} } and on (job_name) {{ last . }}{ {{- $which -}} ,condition="true"} == 1, "job_name", "$1", "job_name", "({{ $name }}-(?:cache-canary|cache|train|embed)).*"))
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
