{{/* The Job that brings a track's model onto the claim before anything else: (list ROOT NAME). It stays
     after it, so that its log tells what was pulled, removed, or taken without the Hub. */}}
{{- define "ptft.cacheJob" -}}
{{- $root := first . -}}
{{- $cache := $root.Values.model.hub.cache -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade,pre-rollback" "helm.sh/hook-delete-policy" "before-hook-creation" "helm.sh/hook-output-log-policy" "hook-failed" }}
  {{- include "ptft.metadata" (list $root (include "ptft.nameOf" (list $root (last .))) "cache" dict $hook) | nindent 2 }}
spec:
  backoffLimit: 2
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget, status: "True"}]
      # a setting that cannot hold, or another's signature: the same again, however often it is tried
      - action: FailJob
        onExitCodes: {containerName: cache, operator: In, values: [2, 3]}
  template:
    metadata:
      labels:
        {{- include "ptft.labelsOf" (list $root "cache") | nindent 8 }}
        {{- with $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      restartPolicy: Never
      {{- if not $root.Values.serviceAccount.create }}
      serviceAccountName: {{ include "ptft.serviceAccountName" $root }}
      {{- end }}
      {{- include "ptft.podCommon" $root | nindent 6 }}
      containers:
        - {{ include "ptft.pullContainer" (list $root "cache" "/models" "/models" (printf "--keep=%d" (int $cache.keep))) | nindent 10 | trim }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ $root.Values.tmp.sizeLimit }}}
        - name: cache
          emptyDir: {sizeLimit: {{ $root.Values.model.hub.sizeLimit }}}
        {{- include "ptft.modelVolumes" $root | nindent 8 }}
        {{- with $root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{/* Whether a track's model comes by way of the cache; empty where it does not. */}}
{{- define "ptft.isCached" -}}
{{- with .Values.model }}{{ if and (eq .source "hub") .hub.cache.enabled }}yes{{ end }}{{ end -}}
{{- end }}
