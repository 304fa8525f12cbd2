{{/* Names: at most 63 characters, as DNS labels are. */}}
{{- define "ptft.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ptft.fullname" -}}
{{- $name := include "ptft.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $full | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ptft.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "ptft.fullname" .) "default") }}
{{- end }}

{{/* The component keeps the pod of `helm test` out of the Service and the budgets. */}}
{{- define "ptft.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ptft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "ptft.testLabels" -}}
app.kubernetes.io/name: {{ include "ptft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "ptft.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ptft
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "ptft.labels" -}}
{{ include "ptft.selectorLabels" . }}
{{ include "ptft.commonLabels" . }}
{{- end }}

{{/* A digest names the bytes, a tag only where they were last seen. */}}
{{- define "ptft.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Where a model is mounted. An image that carries one knows itself where it lies. */}}
{{- define "ptft.modelPath" -}}
{{ .Values.model.path | default "/model" }}
{{- end }}

{{/* The restricted profile of pod security: only the ids can be chosen, never the rest. */}}
{{- define "ptft.podSecurityContext" -}}
runAsNonRoot: true
{{- range $key := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- with index $.Values.security $key }}
{{ $key }}: {{ . | int64 }}
{{- end }}
{{- end }}
{{- if .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
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

{{/* A GPU is asked for by its limit; Kubernetes sets the request to the same. */}}
{{- define "ptft.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- with .Values.gpu -}}
{{- if .count -}}
{{- $_ := set $resources "limits" (merge (dict .resource (int64 .count)) ($resources.limits | default dict)) -}}
{{- end -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}

{{/* Settings of the service. What is null stays unset, and the service's own default holds. */}}
{{- define "ptft.env" -}}
- {name: HOME, value: /tmp}
- {name: BENTOML_HOME, value: /tmp/bentoml}
- {name: BENTOML_DO_NOT_TRACK, value: "true"}
- {name: HF_HOME, value: /tmp/huggingface}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- if or .Values.model.path (ne .Values.model.source "image") }}
- {name: PTFT_MODEL, value: {{ include "ptft.modelPath" . | quote }}}
{{- end }}
{{- with .Values.model.digest }}
- {name: PTFT_MODEL_DIGEST, value: {{ . | quote }}}
{{- end }}
{{- range $key := list "precision" "formats" "jpeg" "keys" "metrics" "corsOrigins" "logFormat" "otlpEndpoint" "provider" "providerOptions" "aliases" "dimensions" "urlHosts" }}
{{- with index $.Values.serving $key }}
- {name: PTFT_{{ $key | snakecase | upper }}, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- with .Values.serving.accessLog }}
- {name: PTFT_ACCESS_LOG, value: "on"}
{{- end }}
{{- if not (kindIs "invalid" .Values.serving.traceRatio) }}
- {name: PTFT_TRACE_RATIO, value: {{ .Values.serving.traceRatio | quote }}}
{{- end }}
{{- if .Values.serving.keysSecret.name }}
- {name: PTFT_KEYS_FILE, value: {{ printf "/etc/ptft/keys/%s" .Values.serving.keysSecret.key | quote }}}
{{- end }}
{{- if .Values.serving.threads }}
- {name: PTFT_THREADS, value: {{ .Values.serving.threads | int64 | quote }}}
{{- else if (.Values.resources.requests | default dict).cpu }}
# onnxruntime would count the cores of the node
- name: PTFT_THREADS
  valueFrom:
    resourceFieldRef: {resource: requests.cpu, divisor: "1"}
{{- end }}
{{- range $key := list "maxBodyBytes" "maxPixels" "maxBatch" "microBatch" "maxInputs" "maxQueue" "maxPrompts" "maxCharacters" "maxMemoryBytes" "maxHeaderBytes" "maxConnections" "cacheBytes" }}
{{- with index $.Values.serving $key | int64 }}
- {name: PTFT_{{ $key | snakecase | upper }}, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- range $key := list "maxWork" "timeout" "bodyIdle" "header" "idle" "hang" "drain" "url" }}
{{- $value := index $.Values.serving (printf "%sSeconds" $key) }}
{{- if not (kindIs "invalid" $value) }}
- {name: PTFT_{{ $key | snakecase | upper }}_S, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that only the download may see. */}}
{{- define "ptft.hubEnv" -}}
- {name: HOME, value: /tmp}
- {name: HF_HOME, value: /cache}
{{- with .Values.model.hub.endpoint }}
- {name: HF_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.model.hub.tokenSecret }}
{{- if .name }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Port of the Hub, for the network policy. */}}
{{- define "ptft.hubPort" -}}
{{- $url := urlParse (.Values.model.hub.endpoint | default "https://") -}}
{{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "http" | ternary "80" "443") }}
{{- end }}

{{/* What a JSON schema cannot say: relations between two values. */}}
{{- define "ptft.check" -}}
{{- $rollout := .Values.rollout }}
{{- $serving := .Values.serving }}
{{- $needed := addf $rollout.preStopSleepSeconds ($serving.drainSeconds | default 0) ($serving.timeoutSeconds | default 0) }}
{{- if le (float64 $rollout.terminationGracePeriodSeconds) $needed }}
{{- fail (printf "rollout.terminationGracePeriodSeconds (%v) must be above the sum of rollout.preStopSleepSeconds, serving.drainSeconds and serving.timeoutSeconds (%v), or requests under way are cut off" $rollout.terminationGracePeriodSeconds $needed) }}
{{- end }}
{{- if and $serving.maxBatch $serving.maxQueue (lt (int64 $serving.maxQueue) (int64 $serving.maxBatch)) }}
{{- fail (printf "serving.maxQueue (%v) must not be below serving.maxBatch (%v), or such a request could never be answered" $serving.maxQueue $serving.maxBatch) }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas (%v) must not be above autoscaling.maxReplicas (%v)" .minReplicas .maxReplicas) }}
{{- end }}
{{- if and .enabled (not .targetCPUUtilizationPercentage) (not .podMetrics) }}
{{- fail "autoscaling.enabled needs targetCPUUtilizationPercentage or podMetrics" }}
{{- end }}
{{- end }}
{{- end }}
