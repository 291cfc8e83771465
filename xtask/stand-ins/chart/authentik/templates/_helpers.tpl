{{- define "authentik.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "authentik.fullname" -}}
{{- $name := include "authentik.name" . -}}
{{- if contains $name .Release.Name -}}{{ .Release.Name }}{{- else -}}{{ .Release.Name }}-{{ $name }}{{- end -}}
{{- end -}}

{{- define "authentik.selectorLabels" -}}
app.kubernetes.io/name: {{ include "authentik.name" .context }}
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "authentik.labels" -}}
helm.sh/chart: "{{ .context.Chart.Name }}-{{ .context.Chart.Version }}"
{{ include "authentik.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
{{- end -}}

{{/* Nested values as names of environment variables; empty strings are left out. */}}
{{- define "authentik.env" -}}
{{- range $key, $value := .values }}
{{- $name := printf "%s%s" $.prefix (upper $key) -}}
{{- if kindIs "map" $value }}
{{- include "authentik.env" (dict "values" $value "prefix" (printf "%s__" $name)) }}
{{- else if not (and (kindIs "string" $value) (eq $value "")) }}
{{ $name }}: {{ $value | toString | b64enc | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "authentik.antiAffinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "authentik.selectorLabels" . | nindent 12 }}
{{- end -}}
