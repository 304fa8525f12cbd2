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

{{/* The init containers that bring the model; nothing where it is there already. */}}
{{- define "ptft.modelInit" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "hub" -}}
- name: pull
  image: {{ include "ptft.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  # into a folder of the mount, not the mount itself: the model appears whole or not at all
  command:
    - ptft
    - pull
    - {{ printf "%s@%s" $model.hub.repo $model.hub.revision | quote }}
    - /pulled/model
    {{- if not $model.hub.cacheClaim }}
    # past the cache, and without what the service does not read
    - --for=serving
    - --precision={{ include "ptft.setting" (list . "precision") }}
    {{- end }}
    {{- with $model.signature }}
    {{- if .configMap }}
    - --require-signature={{ printf "/etc/ptft/signer/%s" .key }}
    {{- end }}
    {{- end }}
  env:
    {{- include "ptft.hubEnv" . | nindent 4 }}
    {{- with $model.hub.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- include "ptft.terminationMessage" . | nindent 2 }}
  securityContext:
    {{- include "ptft.securityContext" . | nindent 4 }}
  resources:
    {{- include "ptft.resources" (list . false) | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: cache, mountPath: /cache}
    - {name: model, mountPath: /pulled}
    {{- if $model.signature.configMap }}
    - {name: signer, mountPath: /etc/ptft/signer, readOnly: true}
    {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
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
  {{- with eq $model.source "hub" | ternary "model" $model.volume.subPath }}
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
  emptyDir: {sizeLimit: {{ $model.hub.sizeLimit }}}
- name: cache
  {{- if $model.hub.cacheClaim }}
  persistentVolumeClaim: {claimName: {{ $model.hub.cacheClaim | quote }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ $model.hub.sizeLimit }}}
  {{- end }}
{{- else if eq $model.source "volume" }}
- name: model
  persistentVolumeClaim: {claimName: {{ $model.volume.claim | quote }}{{ if $model.volume.readOnly }}, readOnly: true{{ end }}}
{{- end }}
{{- end }}
