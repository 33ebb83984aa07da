{{- /* One nodeprep per cluster, so the names are fixed: a second release is refused instead of being a second writer. */ -}}
{{- define "nodeprep.labels" -}}
app.kubernetes.io/name: nodeprep
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "nodeprep.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* An address with its port; those of IPv6 have brackets. */ -}}
{{- define "nodeprep.health" -}}
{{- if contains ":" .Values.health.address -}}
[{{ .Values.health.address }}]:{{ .Values.health.port }}
{{- else -}}
{{ .Values.health.address }}:{{ .Values.health.port }}
{{- end -}}
{{- end }}

{{- /* Where kubelet asks: on the loopback where all addresses are listened at. */ -}}
{{- define "nodeprep.probeHost" -}}
{{- if eq .Values.health.address "0.0.0.0" -}}
127.0.0.1
{{- else if eq .Values.health.address "::" -}}
::1
{{- else -}}
{{ .Values.health.address }}
{{- end -}}
{{- end }}

{{- /* What no schema can say. */ -}}
{{- define "nodeprep.checked" -}}
{{- if and .Values.spec.url .Values.spec.documents -}}
{{- fail "spec.url and spec.documents are two specs: give one of them" -}}
{{- end -}}
{{- if not .Values.spec.url -}}
{{- range $name := list "ca" "tokenKey" "clientCertKey" "clientKeyKey" -}}
{{- if index $.Values.spec $name -}}
{{- fail (printf "spec.%s is for a spec from a URL: set spec.url, too" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (empty .Values.spec.clientCertKey) (empty .Values.spec.clientKeyKey) -}}
{{- fail "spec.clientCertKey and spec.clientKeyKey belong together" -}}
{{- end -}}
{{- if and (eq .Values.drift "repair-with-restart") (not .Values.restarts.enabled) -}}
{{- fail "drift: repair-with-restart needs restarts.enabled=true" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (or (hasPrefix "127." .Values.health.address) (eq .Values.health.address "::1")) -}}
{{- fail "serviceMonitor.enabled needs a health.address that Prometheus can reach: 0.0.0.0, for one" -}}
{{- end -}}
{{- end }}
