{{- /* Objects of the cluster's scope say whose they are. */ -}}
{{- define "tpctl.clusterName" -}}
{{ .Release.Name }}-{{ .Release.Namespace }}
{{- end }}

{{- define "tpctl.selector" -}}
app.kubernetes.io/name: traffic-manager
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tpctl.labels" -}}
{{ include "tpctl.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tpctl
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tpctl.image" -}}
{{- with .registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .name }}:{{ .tag }}
{{- end }}

{{- define "tpctl.managerImage" -}}
{{- $image := .Values.image }}
{{- include "tpctl.image" (dict "registry" $image.registry "name" $image.name "tag" ($image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- define "tpctl.agentImage" -}}
{{- $image := .Values.agent.image }}
{{- include "tpctl.image" (dict "registry" ($image.registry | default .Values.image.registry) "name" $image.name "tag" ($image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- /* Where no agent is put: the webhook is not asked there, and the manager accepts no engagement. */ -}}
{{- define "tpctl.untouchedNamespaces" -}}
{{- list "kube-system" "kube-node-lease" .Release.Namespace | toJson }}
{{- end }}

{{- /* What the manager reads from TPCTL_CONFIG; manager/config.py is its other end. */ -}}
{{- define "tpctl.config" -}}
{{- dict
  "leaseSeconds" (int .Values.leaseSeconds)
  "agentDeadlineSeconds" (int .Values.agentDeadlineSeconds)
  "deny" .Values.deny
  "podCIDRs" .Values.podCIDRs
  "logLevel" .Values.logLevel
  "untouchedNamespaces" (include "tpctl.untouchedNamespaces" . | fromJsonArray)
  "webhookConfiguration" (include "tpctl.clusterName" .)
  "policy" (printf "%s-identity" (include "tpctl.clusterName" .))
  "agent" (dict
    "image" (include "tpctl.agentImage" .)
    "pullPolicy" .Values.agent.image.pullPolicy
    "resources" .Values.agent.resources)
  | toJson }}
{{- end }}
