{{/* Where a model is mounted. An image that carries one knows itself where it lies. */}}
{{- define "ptft.modelPath" -}}
{{ .Values.model.path | default "/model" }}
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

{{/* What pulls: (list ROOT NAME PLACE MOUNTS MORE). */}}
{{- define "ptft.pullContainer" -}}
{{- $root := index . 0 -}}
{{- $model := $root.Values.model -}}
name: {{ index . 1 }}
image: {{ include "ptft.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command:
  - ptft
  - pull
  - {{ printf "%s@%s" $model.hub.repo $model.hub.revision | quote }}
  - {{ index . 2 }}
  # past the client's cache, and without what the service does not read
  - --for=serving
  - --precision={{ include "ptft.setting" (list $root "precision") }}
  {{- with index . 4 }}
  - {{ . }}
  {{- end }}
  {{- with $model.signature }}
  {{- if .configMap }}
  - --require-signature={{ printf "/etc/ptft/signer/%s" .key }}
  {{- end }}
  {{- end }}
env:
  {{- include "ptft.hubEnv" $root | nindent 2 }}
  {{- with $model.hub.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{ include "ptft.terminationMessage" $root }}
securityContext:
  {{- include "ptft.securityContext" $root | nindent 2 }}
resources:
  {{- include "ptft.resources" (list $root false) | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: cache, mountPath: /cache}
  - {name: model, mountPath: {{ index . 3 }}}
  {{- if $model.signature.configMap }}
  - {name: signer, mountPath: /etc/ptft/signer, readOnly: true}
  {{- end }}
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The init containers that bring the model; nothing where it is there already. */}}
{{- define "ptft.modelInit" -}}
{{- if and (eq .Values.model.source "hub") (not .Values.model.hub.cache.enabled) -}}
# into a folder of the mount, not the mount itself: the model appears whole or not at all
- {{ include "ptft.pullContainer" (list . "pull" "/pulled/model" "/pulled" "") | nindent 2 | trim }}
{{- end }}
{{- end }}

{{/* The model's folder on its volume; `ptft pull --keep` names it so where there are several. */}}
{{- define "ptft.modelSubPath" -}}
{{- with .Values.model -}}
{{- if eq .source "volume" -}}
{{ .volume.subPath }}
{{- else if .hub.cache.enabled -}}
{{ .hub.repo | replace "/" "--" }}@{{ .hub.revision }}
{{- else -}}
model
{{- end -}}
{{- end -}}
{{- end }}

{{/* The claim of the cache. */}}
{{- define "ptft.cacheClaim" -}}
{{ .Values.model.hub.cache.claim | default (include "ptft.nameOf" (list . "models")) }}
{{- end }}

{{/* Where who reads the model finds it. */}}
{{- define "ptft.modelMounts" -}}
{{- $model := .Values.model -}}
{{- if $model.signature.configMap }}
- {name: signer, mountPath: /etc/ptft/signer, readOnly: true}
{{- end }}
{{- if ne $model.source "image" }}
- name: model
  mountPath: {{ include "ptft.modelPath" . | quote }}
  readOnly: true
  {{- with include "ptft.modelSubPath" . }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The volumes of both. A claim is not mounted read-only itself, or the kubelet would leave its
     files to whom they belong, fsGroup or not. */}}
{{- define "ptft.modelVolumes" -}}
{{- $model := .Values.model -}}
{{- with $model.signature.configMap }}
- name: signer
  configMap: {name: {{ . | quote }}}
{{- end }}
{{- if eq $model.source "hub" }}
- name: model
  {{- if $model.hub.cache.enabled }}
  persistentVolumeClaim: {claimName: {{ include "ptft.cacheClaim" . | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ $model.hub.sizeLimit }}}
- name: cache
  emptyDir: {sizeLimit: {{ $model.hub.sizeLimit }}}
  {{- end }}
{{- else if eq $model.source "volume" }}
- name: model
  persistentVolumeClaim: {claimName: {{ $model.volume.claim | quote }}{{ if $model.volume.readOnly }}, readOnly: true{{ end }}}
{{- end }}
{{- end }}
