{{/* Quoted for a shell. The schema refuses what ends a quotation. */}}
{{- define "ptft.quoted" -}}
'{{ . }}'
{{- end }}

{{/* requests and limits without what is null. */}}
{{- define "ptft.given" -}}
{{- $found := dict -}}
{{- range $part, $quantities := . -}}
{{- $given := dict -}}
{{- range $name, $quantity := $quantities -}}
{{- if not (kindIs "invalid" $quantity) -}}
{{- $_ := set $given $name $quantity -}}
{{- end -}}
{{- end -}}
{{- if $given -}}
{{- $_ := set $found $part $given -}}
{{- end -}}
{{- end -}}
{{ toJson $found }}
{{- end }}

{{/* A Job with what is in its spec, or a CronJob where it has a schedule:
     (list ROOT NAME SCHEDULE LABELS SPEC). A Job cannot be changed, so its name follows its spec. */}}
{{- define "ptft.job" -}}
{{- $root := index . 0 -}}
{{- $schedule := index . 2 -}}
{{- $spec := index . 4 -}}
apiVersion: batch/v1
{{- if $schedule }}
kind: CronJob
metadata:
  {{- include "ptft.metadata" (list $root (include "ptft.nameOf" (list $root (index . 1))) (index . 1) (index . 3) dict) | nindent 2 }}
spec:
  schedule: {{ $schedule | quote }}
  timeZone: Etc/UTC
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      {{- $spec | nindent 6 }}
{{- else }}
kind: Job
metadata:
  {{- include "ptft.metadata" (list $root (include "ptft.nameOf" (list $root (printf "%s-%s" (index . 1) ($spec | sha256sum | trunc 8)))) (index . 1) (index . 3) dict) | nindent 2 }}
spec:
  {{- $spec | nindent 2 }}
{{- end }}
{{- end }}

{{/* The image that trains. */}}
{{- define "ptft.trainImage" -}}
{{- with .Values.jobs.train.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* What a container of the training pod has, whichever it is: (list ROOT NAME PROGRAM). */}}
{{- define "ptft.trainContainer" -}}
{{- $root := index . 0 -}}
{{- $train := $root.Values.jobs.train -}}
name: {{ index . 1 }}
image: {{ include "ptft.trainImage" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
command: [bash, -c]
args:
  - |
    {{- index . 2 | nindent 4 }}
env:
  - {name: HOME, value: /tmp}
  - {name: HF_HOME, value: /tmp/huggingface}
  - name: JOB_NAME
    valueFrom:
      fieldRef: {fieldPath: "metadata.labels['batch.kubernetes.io/job-name']"}
  {{- with $root.Values.model.hub.endpoint }}
  - {name: HF_ENDPOINT, value: {{ . | quote }}}
  {{- end }}
  {{- range $train.secret.keys }}
  - name: {{ . }}
    valueFrom:
      secretKeyRef: {name: {{ $train.secret.name | quote }}, key: {{ . | quote }}}
  {{- end }}
  {{- with $train.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{ include "ptft.terminationMessage" $root }}
securityContext:
  {{- include "ptft.securityContext" $root | nindent 2 }}
resources:
  {{- $resources := include "ptft.given" $train.resources | fromJson }}
  {{- with $train.gpus }}
  {{- range $part := list "requests" "limits" }}
  {{- $_ := set $resources $part (set (index $resources $part | default dict) $root.Values.gpu.resource (int64 $train.gpus)) }}
  {{- end }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
  - {name: runs, mountPath: /runs}
  {{- if not $train.recipe }}
  - {name: recipe, mountPath: /recipe, readOnly: true}
  {{- end }}
  {{- if $train.dataClaim }}
  - {name: data, mountPath: /data, readOnly: true}
  {{- end }}
{{- end }}

{{/* The run of a pod: one name for all that are started again in its place, another for each time
     that a schedule starts one. */}}
{{- define "ptft.runFolder" -}}
"/runs/$JOB_NAME"
{{- end }}

{{/* `ptft train`, under torch's launcher where there are several ranks: what ptft.launch writes. */}}
{{- define "ptft.trainProgram" -}}
{{- $train := .Values.jobs.train -}}
{{- $ranks := max 1 (int $train.gpus) -}}
{{- $words := list "exec" -}}
{{- if gt (mul $ranks $train.nodes) 1 -}}
{{- $words = concat $words (list "python3" "-m" "ptft.launch.ranks" "--nproc-per-node" $ranks) -}}
{{- if gt (int $train.nodes) 1 -}}
{{- $head := printf "\"$JOB_NAME-0.%s\"" (include "ptft.nameOf" (list . "train")) -}}
{{- $words = concat $words (list "--nnodes" $train.nodes "--node-rank" "\"$JOB_COMPLETION_INDEX\"" "--master-addr" $head "--master-port" 29500 "--rdzv-conf" "timeout=1800") -}}
{{- else -}}
{{- $words = append $words "--standalone" -}}
{{- end -}}
{{- $words = concat $words (list "--signals-to-handle" "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2" "--shutdown-timeout" $train.graceSeconds "-m") -}}
{{- end -}}
{{- $recipe := $train.recipe | default (printf "/recipe/%s" $train.recipeConfigMap.key) -}}
{{- $words = concat $words (list "ptft" "train" (include "ptft.quoted" $recipe)) -}}
{{- range $train.settings -}}
{{- $words = append $words (include "ptft.quoted" .) -}}
{{- end -}}
{{- if $train.fromServed -}}
{{- $words = append $words (include "ptft.quoted" (printf "init.from=%s@%s" .Values.model.hub.repo .Values.model.hub.revision)) -}}
{{- end -}}
{{- $words = append $words (printf "run.dir=%s" (include "ptft.runFolder" .)) -}}
{{- with $train.mirror -}}
{{- $words = append $words (printf "run.mirror='%s'/\"$JOB_NAME\"" .) -}}
{{- end -}}
{{- if and $train.mirror (ne (int $train.graceSeconds) 120) -}}
{{- $words = append $words (printf "run.mirror_grace_seconds=%v" (divf $train.graceSeconds 2)) -}}
{{- end -}}
{{- $words = concat $words (list "--resume" "auto") -}}
set -eu
{{- range $train.secret.keys }}
: "${ {{- . }}:?is not set, and jobs.train.secret names it}"
{{- end }}
{{ join " " $words }}
{{- end }}

{{/* The model folder of the run, held by the gate and pushed; of one pod. */}}
{{- define "ptft.publishProgram" -}}
{{- $publish := .Values.jobs.train.publish -}}
set -eu
test "${JOB_COMPLETION_INDEX:-0}" = 0 || exit 0
ptft export {{ include "ptft.runFolder" . }} /tmp/model --overwrite --precision {{ list "fp32" $publish.precision | compact | join "," }}
ptft gate /tmp/model {{- range $publish.gate }} {{ include "ptft.quoted" . }}{{ end }} || exit 3
exec ptft push /tmp/model {{ $publish.repo }} --tag "{{ $publish.tagPrefix }}$(date -u +%Y%m%d-%H%M%S)"{{ with $publish.licence }} --license {{ . }}{{ end }}
{{- end }}

{{- define "ptft.trainSpec" -}}
{{- $train := .Values.jobs.train -}}
{{- $publishes := ne $train.publish.repo "" -}}
completionMode: Indexed
completions: {{ $train.nodes }}
parallelism: {{ $train.nodes }}
backoffLimit: {{ $train.retries }}
{{- with $train.hours }}
activeDeadlineSeconds: {{ mulf . 3600 | ceil | int64 }}
{{- end }}
# 75 and 143: the run has saved, and goes on in the next pod; 76: another of the machines is gone
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
    - action: Ignore
      onExitCodes: {containerName: node, operator: In, values: [75, {{ if gt (int $train.nodes) 1 }}76, {{ end }}143]}
    {{- if $publishes }}
    # the gate has refused the model, and would again
    - action: FailJob
      onExitCodes: {containerName: publish, operator: In, values: [3]}
    {{- end }}
template:
  metadata:
    labels:
      {{- include "ptft.labelsOf" (list . "train") | nindent 6 }}
      {{- with .Values.commonLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    restartPolicy: Never
    terminationGracePeriodSeconds: {{ $train.graceSeconds }}
    {{- if gt (int $train.nodes) 1 }}
    subdomain: {{ include "ptft.nameOf" (list . "train") }}
    {{- end }}
    {{- include "ptft.podCommon" . | nindent 4 }}
    {{- if and $train.gpus .Values.gpu.runtimeClassName }}
    runtimeClassName: {{ .Values.gpu.runtimeClassName }}
    {{- end }}
    {{- if $publishes }}
    # before the other container, not beside it: a signal reaches the run itself
    initContainers:
      - {{ include "ptft.trainContainer" (list . "node" (include "ptft.trainProgram" .)) | nindent 8 | trim }}
    {{- end }}
    containers:
      {{- if $publishes }}
      - {{ include "ptft.trainContainer" (list . "publish" (include "ptft.publishProgram" .)) | nindent 8 | trim }}
      {{- else }}
      - {{ include "ptft.trainContainer" (list . "node" (include "ptft.trainProgram" .)) | nindent 8 | trim }}
      {{- end }}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: {{ $train.diskLimit }}}
      # what loader processes hand over
      - name: shm
        emptyDir: {medium: Memory}
      - name: runs
        {{- if $train.claim }}
        persistentVolumeClaim: {claimName: {{ $train.claim }}}
        {{- else }}
        emptyDir: {sizeLimit: {{ $train.diskLimit }}}
        {{- end }}
      {{- if not $train.recipe }}
      - name: recipe
        configMap: {name: {{ $train.recipeConfigMap.name }}}
      {{- end }}
      {{- with $train.dataClaim }}
      - name: data
        persistentVolumeClaim: {claimName: {{ . }}}
      {{- end }}
{{- end }}

{{- define "ptft.embedSpec" -}}
{{- $embed := .Values.jobs.embed -}}
backoffLimit: {{ $embed.retries }}
podFailurePolicy:
  rules:
    - action: Ignore
      onPodConditions: [{type: DisruptionTarget, status: "True"}]
template:
  metadata:
    labels:
      {{- include "ptft.labelsOf" (list . "embed") | nindent 6 }}
      {{- with .Values.commonLabels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  spec:
    restartPolicy: Never
    {{- include "ptft.podCommon" . | nindent 4 }}
    {{- with include "ptft.modelInit" . }}
    initContainers:
      {{- . | nindent 6 }}
    {{- end }}
    containers:
      - name: embed
        image: {{ include "ptft.image" . | quote }}
        imagePullPolicy: {{ .Values.image.pullPolicy }}
        command:
          - python
          - -c
          - |
            {{- .Files.Get "files/embed.py" | nindent 12 }}
          - {{ printf "/corpus/%s" $embed.pictures | quote }}
          - {{ printf "/corpus/%s" $embed.index | quote }}
          - {{ $embed.thumbnails | int64 | quote }}
        env:
          {{- include "ptft.env" . | nindent 10 }}
        {{- include "ptft.terminationMessage" . | nindent 8 }}
        securityContext:
          {{- include "ptft.securityContext" . | nindent 10 }}
        resources:
          {{- include "ptft.given" $embed.resources | fromJson | toYaml | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          - {name: corpus, mountPath: /corpus}
          {{- with include "ptft.modelMounts" . }}
          {{- . | nindent 10 }}
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: {{ .Values.tmp.sizeLimit }}}
      - name: corpus
        persistentVolumeClaim: {claimName: {{ $embed.claim }}}
      {{- with include "ptft.modelVolumes" . }}
      {{- . | nindent 6 }}
      {{- end }}
{{- end }}

{{- define "ptft.checkJobs" -}}
{{- with .Values.jobs.train }}
{{- if .enabled }}
{{- if not .image.repository }}
{{- fail "jobs.train.image.repository: missing; allowed: an image with ptft and torch, which the service's has not" }}
{{- end }}
{{- if eq (empty .recipe) (empty .recipeConfigMap.name) }}
{{- fail "jobs.train needs one of jobs.train.recipe and jobs.train.recipeConfigMap.name" }}
{{- end }}
{{- if and .fromServed (ne $.Values.model.source "hub") }}
{{- fail (printf "jobs.train.fromServed needs model.source: hub, and it is %s" $.Values.model.source) }}
{{- end }}
{{- if ne (empty .secret.name) (empty .secret.keys) }}
{{- fail "jobs.train.secret: name and keys belong together" }}
{{- end }}
{{- if and (gt (int .nodes) 1) (not .claim) }}
{{- fail (printf "jobs.train.nodes (%v) needs jobs.train.claim: a claim with ReadWriteMany, for the pods share the run" .nodes) }}
{{- end }}
{{- include "ptft.checkLimits" (list "jobs.train.resources" .resources) }}
{{- end }}
{{- end }}
{{- with .Values.jobs.embed }}
{{- if .enabled }}
{{- if not .claim }}
{{- fail "jobs.embed.claim: missing; allowed: a claim with the pictures" }}
{{- end }}
{{- if hasPrefix (printf "%s/" .pictures) (printf "%s/" .index) }}
{{- fail (printf "jobs.embed.index (%s) must not lie in jobs.embed.pictures (%s)" .index .pictures) }}
{{- end }}
{{- include "ptft.checkLimits" (list "jobs.embed.resources" .resources) }}
{{- end }}
{{- end }}
{{- end }}
