{{/* A quantity as a number: 500m is 0.5, 1Gi 1073741824. */}}
{{- define "ptft.quantity" -}}
{{- $text := toString . -}}
{{- $suffix := regexFind "(m|k|[KMGTPE]i|[MGTPE])$" $text -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{ mulf (trimSuffix $suffix $text | float64) (index $factors $suffix) }}
{{- end }}

{{/* Pods of the running release, or nothing: there is none, or Helm was only asked to render. */}}
{{- define "ptft.running" -}}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace (include "ptft.fullname" .) -}}
{{ .spec.replicas }}
{{- end }}
{{- end }}

{{/* How many pods the Deployment asks for. Where they follow the load it asks for as many as there
     are, for without a number Kubernetes would make it one; the autoscaler moves on from there. */}}
{{- define "ptft.replicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- $running := include "ptft.running" . -}}
{{- if and (eq $running "0") (ne (int .Values.autoscaling.minReplicas) 0) -}}
{{ .Values.autoscaling.minReplicas }}
{{- else -}}
{{ $running }}
{{- end -}}
{{- else -}}
{{ .Values.replicas }}
{{- end -}}
{{- end }}

{{/* What a JSON schema cannot say: relations between two values. */}}
{{- define "ptft.check" -}}
{{- include "ptft.checkName" . }}
{{- include "ptft.checkService" . }}
{{- include "ptft.checkPods" . }}
{{- include "ptft.checkScaling" . }}
{{- include "ptft.checkMetrics" . }}
{{- include "ptft.checkGate" . }}
{{- include "ptft.checkCanary" . }}
{{- include "ptft.checkJobs" . }}
{{- end }}

{{/* (list NAME RESOURCES) */}}
{{- define "ptft.checkLimits" -}}
{{- $where := first . }}
{{- $resources := last . }}
{{- range $name, $limit := $resources.limits }}
{{- $request := index ($resources.requests | default dict) $name }}
{{- if not (or (kindIs "invalid" $limit) (kindIs "invalid" $request)) }}
{{- if lt (include "ptft.quantity" $limit | float64) (include "ptft.quantity" $request | float64) }}
{{- fail (printf "%s.limits.%s (%v) must not be below %s.requests.%s (%v)" $where $name $limit $where $name $request) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* A Service's name is a DNS label that begins with a letter; a release's may have dots. */}}
{{- define "ptft.checkName" -}}
{{- $name := include "ptft.fullname" . }}
{{- if not (regexMatch "^[a-z]([a-z0-9-]*[a-z0-9])?$" $name) }}
{{- fail (printf "the release's name makes a Service called %s; allowed: lower case letters, digits and -, a letter first: choose another, or set fullnameOverride" $name) }}
{{- end }}
{{- end }}

{{- define "ptft.checkService" -}}
{{- $rollout := .Values.rollout }}
{{- $closing := (.Files.Get "files/service.json" | fromJson).closingSeconds }}
{{- $needed := addf $rollout.preStopSleepSeconds $closing (include "ptft.setting" (list . "drainSeconds") | float64) (include "ptft.longest" . | float64) }}
{{- if le (float64 $rollout.terminationGracePeriodSeconds) $needed }}
{{- fail (printf "rollout.terminationGracePeriodSeconds (%v) must be above the sum of rollout.preStopSleepSeconds, serving.drainSeconds, the greater of serving.timeoutSeconds and serving.listTimeoutSeconds, and the %v that closing takes (%v), or requests under way are cut off" $rollout.terminationGracePeriodSeconds $closing $needed) }}
{{- end }}
{{- range (.Files.Get "files/service.json" | fromJson).relations }}
{{- $value := include "ptft.setting" (list $ .value) | float64 }}
{{- $least := mulf .times (include "ptft.setting" (list $ .least) | float64) }}
{{- $follows := and .follows (kindIs "invalid" (index $.Values.serving .follows)) }}
{{- if and (lt $value $least) (not $follows) }}
{{- fail (printf "serving.%s (%s) must not be below serving.%s%s (%s), or such a request could never be answered" .value (include "ptft.value" $value) .least (eq (int .times) 1 | ternary "" (printf " times %v" .times)) (include "ptft.value" $least)) }}
{{- end }}
{{- end }}
{{- with .Values.service }}
{{- if and .loadBalancerSourceRanges (ne .type "LoadBalancer") }}
{{- fail (printf "service.loadBalancerSourceRanges (%s) needs service.type: LoadBalancer; with %s nothing would keep others out" (join ", " .loadBalancerSourceRanges) .type) }}
{{- end }}
{{- end }}
{{- if and .Values.serving.providerOptions (not (has .Values.serving.provider (list "cuda" "tensorrt" "openvino"))) }}
{{- fail (printf "serving.providerOptions (%s) needs serving.provider: cuda, tensorrt or openvino" .Values.serving.providerOptions) }}
{{- end }}
{{- end }}

{{/* Seconds that a request may take: a list is given more. */}}
{{- define "ptft.longest" -}}
{{- $one := include "ptft.setting" (list . "timeoutSeconds") | float64 }}
{{- $list := include "ptft.setting" (list . "listTimeoutSeconds") | float64 }}
{{- maxf $one $list }}
{{- end }}

{{/* (list WHAT NAMES KEYS): names of which each may stand once; who adds to them is named. */}}
{{- define "ptft.checkOnce" -}}
{{- $seen := dict }}
{{- range index . 1 }}
{{- if hasKey $seen . }}
{{- fail (printf "%s: the %s %s stands twice in a pod; allowed: once, and none that the chart has" (index $ 2) (index $ 0) .) }}
{{- end }}
{{- $_ := set $seen . true }}
{{- end }}
{{- end }}

{{/* What users add to the pod, beside what is in it. */}}
{{- define "ptft.checkAdded" -}}
{{- $pod := (include "ptft.podTemplate" (list . "server") | fromYaml).spec }}
{{- $volumes := list }}
{{- range $pod.volumes }}
{{- $volumes = append $volumes .name }}
{{- end }}
{{- include "ptft.checkOnce" (list "volume" $volumes "extraVolumes") }}
{{- $names := list }}
{{- range concat ($pod.initContainers | default list) $pod.containers }}
{{- $container := . }}
{{- $names = append $names .name }}
{{- $places := list }}
{{- range .volumeMounts }}
{{- $places = append $places (trimSuffix "/" .mountPath) }}
{{- if not (has .name $volumes) }}
{{- fail (printf "%s: no volume %s in the pod, for %s; allowed: %s" (has $container.name (list "server" "pull") | ternary "extraVolumeMounts" $container.name) .name .mountPath (join ", " $volumes)) }}
{{- end }}
{{- end }}
{{- include "ptft.checkOnce" (list "mount at" $places (has .name (list "server" "pull") | ternary "extraVolumeMounts" .name)) }}
{{- $variables := list }}
{{- range .env }}
{{- $variables = append $variables .name }}
{{- end }}
{{- include "ptft.checkOnce" (list "variable" $variables (has .name (list "server" "pull") | ternary "extraEnv" .name)) }}
{{- end }}
{{- include "ptft.checkOnce" (list "container" $names "sidecars, initContainers") }}
{{- end }}

{{- define "ptft.checkPods" -}}
{{- include "ptft.checkAdded" . }}
{{- include "ptft.checkLimits" (list "resources" .Values.resources) }}
{{- with .Values.probes }}
{{- $start := mul .startup.periodSeconds .startup.failureThreshold }}
{{- $deadline := int64 $.Values.rollout.progressDeadlineSeconds }}
{{- if lt $deadline $start }}
{{- fail (printf "rollout.progressDeadlineSeconds (%d) must not be below probes.startup.periodSeconds times probes.startup.failureThreshold (%d), or a pod that may still start counts as failed" $deadline $start) }}
{{- end }}
{{- if le $deadline (int64 $.Values.rollout.minReadySeconds) }}
{{- fail (printf "rollout.progressDeadlineSeconds (%d) must be above rollout.minReadySeconds (%v)" $deadline $.Values.rollout.minReadySeconds) }}
{{- end }}
{{- $patience := mul .liveness.periodSeconds .liveness.failureThreshold }}
{{- $hang := include "ptft.setting" (list $ "hangSeconds") | float64 }}
{{- if le (float64 $patience) $hang }}
{{- fail (printf "probes.liveness.periodSeconds times probes.liveness.failureThreshold (%d) must be above serving.hangSeconds (%s), after which the service ends by itself and says why" $patience (include "ptft.value" $hang)) }}
{{- end }}
{{- end }}
{{- if and (eq (.Values.dnsPolicy | default "") "None") (not .Values.dnsConfig.nameservers) }}
{{- fail "dnsPolicy: None needs dnsConfig.nameservers" }}
{{- end }}
{{- end }}

{{- define "ptft.checkScaling" -}}
{{- with .Values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas (%v) must not be above autoscaling.maxReplicas (%v)" .minReplicas .maxReplicas) }}
{{- end }}
{{- if eq .by "hpa" }}
{{- if not (or .targetWorkSeconds .targetCPUUtilizationPercentage .podMetrics) }}
{{- fail "autoscaling.enabled needs autoscaling.targetWorkSeconds, targetCPUUtilizationPercentage or podMetrics" }}
{{- end }}
{{- if and .targetCPUUtilizationPercentage (not ($.Values.resources.requests | default dict).cpu) }}
{{- fail (printf "autoscaling.targetCPUUtilizationPercentage (%v) is of resources.requests.cpu, which is not given: set either it or this to null" .targetCPUUtilizationPercentage) }}
{{- end }}
{{- if eq (int .minReplicas) 0 }}
{{- fail "autoscaling.minReplicas (0) needs autoscaling.by: keda" }}
{{- end }}
{{- else }}
{{- if not .keda.serverAddress }}
{{- fail "autoscaling.by (keda) needs autoscaling.keda.serverAddress: Prometheus, such as http://prometheus-operated.monitoring:9090" }}
{{- end }}
{{- if not .targetWorkSeconds }}
{{- fail "autoscaling.by (keda) needs autoscaling.targetWorkSeconds" }}
{{- end }}
{{- if and (eq (int .minReplicas) 0) (not .keda.wakeQuery) }}
{{- fail "autoscaling.minReplicas (0) needs autoscaling.keda.wakeQuery: without a pod the service itself counts nothing" }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if not .Values.autoscaling.enabled }}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace (include "ptft.fullname" .) }}
{{- if and (index (.metadata.annotations | default dict) "ptft/autoscaled") (gt (int .spec.replicas) (int $.Values.replicas)) }}
{{- fail (printf "autoscaling.enabled goes off while %v pods run, and replicas is %v: set replicas=%v first, and lower it afterwards, or most of them go at once" .spec.replicas $.Values.replicas .spec.replicas) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "ptft.checkMetrics" -}}
{{- $who := include "ptft.setting" (list . "metrics") }}
{{- if and (eq $who "off") (or .Values.metrics.rules.enabled .Values.metrics.dashboard.enabled (and .Values.autoscaling.enabled .Values.autoscaling.targetWorkSeconds)) }}
{{- fail "serving.metrics (off): metrics.rules, metrics.dashboard and autoscaling.targetWorkSeconds need what it counts" }}
{{- end }}
{{- with .Values.metrics }}
{{- if and (eq $who "off") (ne .scrape "none") }}
{{- fail (printf "metrics.scrape (%s) with serving.metrics (off): there is nothing to scrape; set metrics.scrape=none" .scrape) }}
{{- end }}
{{- if and (eq $who "key") (eq .scrape "annotations") }}
{{- fail "metrics.scrape (annotations) with serving.metrics (key): an annotation holds no key; set metrics.scrape to serviceMonitor, or none" }}
{{- end }}
{{- if and (eq $who "key") (eq .scrape "serviceMonitor") (not .serviceMonitor.keySecret.name) }}
{{- fail "metrics.scrape (serviceMonitor) with serving.metrics (key) needs metrics.serviceMonitor.keySecret.name" }}
{{- end }}
{{- end }}
{{- end }}
