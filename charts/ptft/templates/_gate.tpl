{{/* Bounds as options of `ptft gate`: (list OPTION MAP). */}}
{{- define "ptft.bounds" -}}
{{- $option := first . -}}
{{- range $name, $value := last . }}
{{- if not (kindIs "invalid" $value) }}
- --{{ $option }}
- {{ printf "%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Which probe set, as an option. */}}
{{- define "ptft.probe" -}}
{{- with .Values.gate.probe }}
{{- if .hub }}
- --probe
- {{ .hub | quote }}
{{- else if or .configMap .claim }}
- --probe
- /probe{{ with .subPath }}/{{ . }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The key of who asks the service. */}}
{{- define "ptft.askingKey" -}}
{{- with .Values.gate.keySecret }}
{{- if .name }}
- name: PTFT_API_KEY
  valueFrom:
    secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "ptft.gateEnv" -}}
- {name: HOME, value: /tmp}
- {name: HF_HOME, value: /tmp/huggingface}
{{- if (.Values.resources.requests | default dict).cpu }}
- name: PTFT_THREADS
  valueFrom:
    resourceFieldRef: {resource: requests.cpu, divisor: "1"}
{{- end }}
{{- include "ptft.askingKey" . }}
{{- if .Values.gate.probe.hub }}
{{- range (include "ptft.hubEnv" . | fromYamlArray) }}
{{- if hasPrefix "HF_" .name | and (ne .name "HF_HOME") }}
- {{ toJson . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ptft.probeMounts" -}}
{{- with .Values.gate.probe }}
{{- if or .configMap .claim }}
- {name: probe, mountPath: /probe, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{- define "ptft.probeVolumes" -}}
{{- with .Values.gate.probe }}
{{- if .configMap }}
- name: probe
  configMap: {name: {{ .configMap | quote }}}
{{- else if .claim }}
- name: probe
  persistentVolumeClaim: {claimName: {{ .claim | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* The container that runs `ptft gate`: (list ROOT ARGUMENTS MOUNTS). */}}
{{- define "ptft.gateContainer" -}}
{{- $root := index . 0 -}}
name: gate
image: {{ include "ptft.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command:
  - ptft
  - gate
  {{- range index . 1 }}
  - {{ . | quote }}
  {{- end }}
env:
  {{- include "ptft.gateEnv" $root | nindent 2 }}
  {{- with $root.Values.gate.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{ include "ptft.terminationMessage" $root }}
securityContext:
  {{- include "ptft.securityContext" $root | nindent 2 }}
resources:
  {{- index . 3 | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- with index . 2 }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "ptft.probeMounts" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The Job that holds one track before any pod changes: (list ROOT TRACK). */}}
{{- define "ptft.gateJob" -}}
{{- $root := first . -}}
{{- $track := last . -}}
{{- $gate := $root.Values.gate -}}
{{- $arguments := list (include "ptft.modelPath" $root) "--precision" ($root.Values.serving.precision | default "fp32") -}}
{{- if ($root.Values.resources.requests | default dict).cpu -}}
{{- $arguments = concat $arguments (list "--threads" "$(PTFT_THREADS)") -}}
{{- end -}}
{{- with $root.Values.model.digest -}}
{{- $arguments = concat $arguments (list "--digest" .) -}}
{{- end -}}
{{- with $root.Values.model.signature -}}
{{- if .configMap -}}
{{- $arguments = concat $arguments (list "--require-signature" (printf "/etc/ptft/signer/%s" .key)) -}}
{{- end -}}
{{- end -}}
{{- $arguments = concat $arguments (include "ptft.probe" $root | fromYamlArray) (include "ptft.bounds" (list "at-least" (omit $gate.atLeast "agreement")) | fromYamlArray) -}}
{{- $live := $gate.liveUrl | default ($root.Release.IsUpgrade | ternary (printf "http://%s:%v" (include "ptft.fullname" $root) $root.Values.service.port) "") -}}
{{- if and $live (or $gate.drop (hasKey $gate.atLeast "agreement")) -}}
{{- $arguments = concat $arguments (list "--live" $live) (include "ptft.bounds" (list "drop" $gate.drop) | fromYamlArray) (include "ptft.bounds" (list "at-least" (pick $gate.atLeast "agreement")) | fromYamlArray) -}}
{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- $hook := dict "helm.sh/hook" "pre-install,pre-upgrade" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" "helm.sh/hook-output-log-policy" "hook-failed" "helm.sh/hook-weight" "5" }}
  {{- include "ptft.metadata" (list $root (include "ptft.nameOf" (list $root $track)) "gate" dict $hook) | nindent 2 }}
spec:
  backoffLimit: 0
  activeDeadlineSeconds: {{ $gate.deadlineSeconds }}
  template:
    metadata:
      labels:
        {{- include "ptft.labelsOf" (list $root "gate") | nindent 8 }}
        {{- with $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      restartPolicy: Never
      {{- if not $root.Values.serviceAccount.create }}
      serviceAccountName: {{ include "ptft.serviceAccountName" $root }}
      {{- end }}
      {{- include "ptft.podCommon" $root | nindent 6 }}
      {{- with include "ptft.modelInit" $root }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - {{ include "ptft.gateContainer" (list $root $arguments (include "ptft.modelMounts" $root) (include "ptft.resources" (list $root false))) | nindent 10 | trim }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: {{ $root.Values.tmp.sizeLimit }}}
        {{- with include "ptft.modelVolumes" $root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with include "ptft.probeVolumes" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end }}

{{- define "ptft.checkGate" -}}
{{- $gate := .Values.gate -}}
{{- $sets := compact (list $gate.probe.configMap $gate.probe.claim $gate.probe.hub) -}}
{{- if gt (len $sets) 1 }}
{{- fail "gate.probe: allowed: one of configMap, claim and hub" }}
{{- end }}
{{- if and (not $sets) (or $gate.drop (omit $gate.atLeast "agreement")) }}
{{- fail "gate.atLeast and gate.drop are of a probe set: gate.probe.configMap, claim or hub is needed for them" }}
{{- end }}
{{- end }}
