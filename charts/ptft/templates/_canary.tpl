{{/* The release as its canary is: the same values but for its image and its model. */}}
{{- define "ptft.canaryValues" -}}
{{- $values := deepCopy .Values -}}
{{- $canary := .Values.canary -}}
{{- with $canary.image -}}
{{- if or .repository .tag .digest -}}
{{- $own := dict "repository" (.repository | default $.Values.image.repository) "tag" .tag "digest" .digest -}}
{{- $_ := set $values "image" (mergeOverwrite $values.image $own) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $values "model" (mergeOverwrite $values.model (deepCopy $canary.model)) -}}
{{- $_ := set $values.canary "mirror" 0 -}}
{{ toJson $values }}
{{- end }}

{{/* Whether what the release is asked goes to the canary as well; empty where not. */}}
{{- define "ptft.mirrors" -}}
{{- if and .Values.canary.enabled (gt (float64 .Values.canary.mirror) 0.0) }}true{{ end -}}
{{- end }}

{{/* Whether pods of the running release are already what these values ask for:
     (list ROOT DEPLOYMENT). Empty where they are not, or where Helm was only asked to render. */}}
{{- define "ptft.isRunning" -}}
{{- $root := first . -}}
{{- with lookup "apps/v1" "Deployment" $root.Release.Namespace (last .) -}}
{{- $sum := index (.spec.template.metadata.annotations | default dict) "checksum/model" -}}
{{- $server := dict -}}
{{- range .spec.template.spec.containers }}{{ if eq .name "server" }}{{ $server = . }}{{ end }}{{ end -}}
{{- if and (eq $sum (toJson $root.Values.model | sha256sum)) (eq ($server.image | default "") (include "ptft.image" $root)) -}}
{{ (.status | default dict).readyReplicas | default 0 }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Relations of the canary, and that no weight is given to what is not ready. */}}
{{- define "ptft.checkCanary" -}}
{{- $canary := .Values.canary -}}
{{- $weight := int $canary.weight -}}
{{- if and $weight (not $canary.enabled) }}
{{- fail (printf "canary.weight (%d) needs canary.enabled" $weight) }}
{{- end }}
{{- if and (gt (float64 $canary.mirror) 0.0) (not $canary.enabled) }}
{{- fail (printf "canary.mirror (%v) needs canary.enabled" $canary.mirror) }}
{{- end }}
{{- if and (not (kindIs "invalid" $canary.compare.atMost.disagreement)) $canary.enabled (not (include "ptft.mirrors" .)) }}
{{- fail (printf "canary.compare.atMost.disagreement (%v) needs canary.mirror: nothing would be counted" $canary.compare.atMost.disagreement) }}
{{- end }}
{{- if and (eq $canary.by "nginx") $canary.enabled (not .Values.ingress.enabled) }}
{{- fail "canary.by (nginx) needs ingress.enabled, whose rules the canary's share" }}
{{- end }}
{{- if and (eq $canary.by "httpRoute") (not $canary.httpRoute.parentRefs) }}
{{- fail "canary.by (httpRoute) needs canary.httpRoute.parentRefs: the Gateway that the route belongs to" }}
{{- end }}
{{- if $canary.enabled }}
{{- $root := dict "Values" (include "ptft.canaryValues" . | fromJson) "Chart" .Chart "Release" .Release "Files" .Files }}
{{- with $root.Values.model }}
{{- if and (eq .source "hub") (not (and .hub.repo .hub.revision)) }}
{{- fail "canary.model.source (hub) needs canary.model.hub.repo and canary.model.hub.revision" }}
{{- end }}
{{- if and (eq .source "volume") (not .volume.claim) }}
{{- fail "canary.model.source (volume) needs canary.model.volume.claim" }}
{{- end }}
{{- end }}
{{- if and (gt $weight 0) (lt $weight 100) (eq $canary.by "replicas") }}
{{- if .Values.autoscaling.enabled }}
{{- fail (printf "canary.weight (%d) by replicas with autoscaling.enabled: the share would follow the load; set canary.by to httpRoute or nginx" $weight) }}
{{- end }}
{{- $share := divf (mulf 100 $canary.replicas) (add $canary.replicas .Values.replicas) }}
{{- if or (gt (subf $share $weight) 2.0) (gt (subf $weight $share) 2.0) }}
{{- fail (printf "canary.weight (%d) by replicas: %d beside %d pods get %.0f %%; change replicas, canary.replicas or canary.weight" $weight (int $canary.replicas) (int .Values.replicas) $share) }}
{{- end }}
{{- end }}
{{- if $weight }}
{{- if .Release.IsInstall }}
{{- fail (printf "canary.weight (%d) on installation: there is no canary that is ready; install with 0" $weight) }}
{{- end }}
{{- if lookup "apps/v1" "Deployment" .Release.Namespace (include "ptft.fullname" .) }}
{{- if not (include "ptft.isRunning" (list $root (include "ptft.nameOf" (list . "canary"))) | default "0" | int) }}
{{- fail (printf "canary.weight (%d): no canary of this image and model is ready; upgrade with canary.weight=0 first, and see kubectl get pods -l app.kubernetes.io/component=canary" $weight) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whom the Service sends requests to. By replicas it is all pods of both tracks, so that each gets
     its share; where a route or an ingress divides them, those of the release alone. */}}
{{- define "ptft.serviceSelector" -}}
{{- $weight := ternary (int .Values.canary.weight) 0 (eq .Values.canary.by "replicas") -}}
{{- if eq $weight 0 -}}
{{ include "ptft.selectorLabels" . }}
{{- else if eq $weight 100 -}}
{{ include "ptft.labelsOf" (list . "canary") }}
{{- else -}}
app.kubernetes.io/name: {{ include "ptft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
ptft/answers: "true"
{{- end -}}
{{- end }}
