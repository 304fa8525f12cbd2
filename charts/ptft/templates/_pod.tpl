{{/* The restricted profile of pod security: only the ids can be chosen, never the rest. */}}
{{- define "ptft.podSecurityContext" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with index $.Values.security $key }}
{{ $key }}: {{ . | int64 }}
{{- end }}
{{- end }}
{{- if .Values.security.fsGroup }}
fsGroupChangePolicy: {{ .Values.security.fsGroupChangePolicy }}
{{- end }}
{{- with .Values.security.supplementalGroups }}
supplementalGroups: [{{ range $i, $id := . }}{{ if $i }}, {{ end }}{{ $id | int64 }}{{ end }}]
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "ptft.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* `kubectl describe` says why a container ended: its last line. */}}
{{- define "ptft.terminationMessage" -}}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{/* (list . GPUS): a GPU is asked for by its limit; Kubernetes sets the request to the same. */}}
{{- define "ptft.resources" -}}
{{- $root := first . -}}
{{- $gpus := last . -}}
{{- $found := dict -}}
{{- range $part := list "requests" "limits" -}}
{{- $given := dict -}}
{{- range $name, $quantity := index $root.Values.resources $part -}}
{{- if not (kindIs "invalid" $quantity) -}}
{{- $_ := set $given $name $quantity -}}
{{- end -}}
{{- end -}}
{{- if and $gpus (eq $part "limits") $root.Values.gpu.count -}}
{{- $_ := set $given $root.Values.gpu.resource (int64 $root.Values.gpu.count) -}}
{{- end -}}
{{- if $given -}}
{{- $_ := set $found $part $given -}}
{{- end -}}
{{- end -}}
{{ toYaml $found }}
{{- end }}

{{/* Of a container beside the service: (list . CPU MEMORY MOST). A CPU limit where the service has
     one, for then a quota may ask for it. */}}
{{- define "ptft.smallResources" -}}
{{- $limits := (index . 0).Values.resources.limits | default dict -}}
requests: {cpu: {{ index . 1 }}, memory: {{ index . 2 }}}
limits: {memory: {{ index . 3 }}{{ if $limits.cpu }}, cpu: {{ $limits.cpu | quote }}{{ end }}}
{{- end }}

{{/* Containers that a user adds: (list . CONTAINERS), with the restricted profile set on each. */}}
{{- define "ptft.userContainers" -}}
{{- $root := first . -}}
{{- range last . }}
- {{ toYaml (omit . "runAsUser") | nindent 2 | trim }}
  {{- include "ptft.terminationMessage" $root | nindent 2 }}
  securityContext:
    {{- include "ptft.securityContext" $root | nindent 4 }}
    {{- with .runAsUser }}
    runAsUser: {{ . | int64 }}
    {{- end }}
{{- end }}
{{- end }}

{{/* What every pod of the release has. */}}
{{- define "ptft.podCommon" -}}
automountServiceAccountToken: false
# a Service called ptft would inject PTFT_PORT and the like beside the settings
enableServiceLinks: false
securityContext:
  {{- include "ptft.podSecurityContext" . | nindent 2 }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" "hostAliases" "dnsConfig" }}
{{- with index $.Values $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $key := list "priorityClassName" "dnsPolicy" }}
{{- with index $.Values $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The service's container. */}}
{{- define "ptft.server" -}}
name: server
image: {{ include "ptft.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
ports:
  - {name: http, containerPort: 3000, protocol: TCP}
env:
  {{- include "ptft.env" . | nindent 2 }}
  {{- if .Values.search.claim }}
  - {name: PTFT_INDEX, value: /index}
  {{- end }}
  {{- if include "ptft.mirrors" . }}
  - {name: PTFT_MIRROR_URL, value: {{ printf "http://%s:%v" (include "ptft.nameOf" (list . "canary")) .Values.service.port | quote }}}
  - {name: PTFT_MIRROR_SHARE, value: {{ .Values.canary.mirror | quote }}}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.rollout.preStopSleepSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ . }}
{{- end }}
{{- range $probe, $path := dict "startup" "/readyz" "readiness" "/readyz" "liveness" "/livez" }}
{{ $probe }}Probe:
  httpGet: {path: {{ $path }}, port: http}
  {{- toYaml (index $.Values.probes $probe) | nindent 2 }}
{{- end }}
{{ include "ptft.terminationMessage" . }}
securityContext:
  {{- include "ptft.securityContext" . | nindent 2 }}
resources:
  {{- include "ptft.resources" (list . true) | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.serving.keysSecret.name }}
  - {name: keys, mountPath: /etc/ptft/keys, readOnly: true}
  {{- end }}
  {{- with include "ptft.modelMounts" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .Values.search.claim }}
  - name: index
    mountPath: /index
    readOnly: true
    {{- with .Values.search.subPath }}
    subPath: {{ . | quote }}
    {{- end }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The pod of the service: metadata and spec, for a Deployment. Another track of it (a canary) is
     this with another root, whose Values differ. (list . "server"): its component. */}}
{{- define "ptft.podTemplate" -}}
{{- $component := last . -}}
{{- $root := first . -}}
{{- with first . -}}
metadata:
  labels:
    {{- include "ptft.labelsOf" (list . $component) | nindent 4 }}
    # so that a Service can take both tracks: see ptft.serviceSelector
    ptft/answers: "true"
    {{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # another model is another pod, whatever the source
    checksum/model: {{ toJson .Values.model | sha256sum }}
    {{- if eq .Values.metrics.scrape "annotations" }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "3000"
    prometheus.io/path: /metrics
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "ptft.serviceAccountName" . }}
  terminationGracePeriodSeconds: {{ .Values.rollout.terminationGracePeriodSeconds }}
  {{- include "ptft.podCommon" . | nindent 2 }}
  {{- with .Values.gpu.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- $init := include "ptft.modelInit" . }}
  {{- if or $init .Values.initContainers }}
  initContainers:
    {{- with $init }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- include "ptft.userContainers" (list . .Values.initContainers) | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "ptft.server" . | nindent 6 | trim }}
    {{- include "ptft.userContainers" (list . .Values.sidecars) | nindent 4 }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ .Values.tmp.sizeLimit }}}
    {{- with .Values.serving.keysSecret.name }}
    - name: keys
      secret: {secretName: {{ . | quote }}}
    {{- end }}
    {{- with include "ptft.modelVolumes" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.search.claim }}
    - name: index
      persistentVolumeClaim: {claimName: {{ . | quote }}}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if .Values.topologySpread.enabled }}
  # by template hash: an upgrade must not spread against the pods that leave
  topologySpreadConstraints:
    {{- range .Values.topologySpread.topologyKeys }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: {{ $root.Values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "ptft.labelsOf" (list $root $component) | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
