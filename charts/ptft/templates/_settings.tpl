{{/* A setting of the service, by the name of its value: what is given, else the service's own
     default, which files/service.json holds: (list . "timeoutSeconds"). */}}
{{- define "ptft.setting" -}}
{{- $root := first . -}}
{{- $given := index $root.Values.serving (last .) -}}
{{- if kindIs "invalid" $given -}}
{{- $known := $root.Files.Get "files/service.json" | fromJson -}}
{{ (index $known.settings (last .)).default }}
{{- else -}}
{{ $given }}
{{- end -}}
{{- end }}

{{/* As an environment variable has it. Helm reads every number as a float. */}}
{{- define "ptft.value" -}}
{{- if kindIs "bool" . -}}
{{ ternary "on" "off" . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{ int64 . }}
{{- else -}}
{{ . }}
{{- end -}}
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
{{- with .Values.model.signature }}
{{- if .configMap }}
- {name: PTFT_MODEL_SIGNED_BY, value: {{ printf "/etc/ptft/signer/%s" .key | quote }}}
{{- end }}
{{- end }}
{{- if .Values.serving.keysSecret.name }}
- {name: PTFT_KEYS_FILE, value: {{ printf "/etc/ptft/keys/%s" .Values.serving.keysSecret.key | quote }}}
{{- end }}
{{- if and (kindIs "invalid" .Values.serving.threads) (.Values.resources.requests | default dict).cpu }}
# onnxruntime would count the cores of the node
- name: PTFT_THREADS
  valueFrom:
    resourceFieldRef: {resource: requests.cpu, divisor: "1"}
{{- end }}
{{- range $key, $setting := (.Files.Get "files/service.json" | fromJson).settings }}
{{- $value := index $.Values.serving $key }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- {name: {{ $setting.variable }}, value: {{ include "ptft.value" $value | quote }}}
{{- end }}
{{- end }}
{{- end }}
