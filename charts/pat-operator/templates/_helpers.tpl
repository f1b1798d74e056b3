{{/*
Fills in the defaults of values that are missing or null. Call it first in each template, with the root context.

Values are missing after an upgrade with `--reuse-values`, which keeps the values of the older chart. files/defaults.yaml has every value of
values.yaml but free maps and lists that may be empty: of these, null means empty.
*/}}
{{- define "pat-operator.prepare" -}}
{{- $values := include "pat-operator.withoutNulls" .Values | fromJson -}}
{{- $_ := set . "Values" (mergeOverwrite (.Files.Get "files/defaults.yaml" | fromYaml) $values) -}}
{{- end -}}

{{/* A map without the keys whose value is null, as JSON. */}}
{{- define "pat-operator.withoutNulls" -}}
{{- $kept := dict -}}
{{- range $key, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $_ := set $kept $key (include "pat-operator.withoutNulls" $value | fromJson) -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $key $value -}}
{{- end -}}
{{- end -}}
{{- $kept | toJson -}}
{{- end -}}

{{/* A text as part of a name: lower-case letters, digits and hyphens. */}}
{{- define "pat-operator.namePart" -}}
{{- regexReplaceAll "[^a-z0-9-]" (lower .) "-" | trimAll "-" -}}
{{- end -}}

{{/* The prefix of the names of objects. It begins with a letter, because the name of a Service must. */}}
{{- define "pat-operator.fullname" -}}
{{- $name := include "pat-operator.namePart" (.Values.nameOverride | default .Chart.Name) -}}
{{- $full := include "pat-operator.namePart" (.Values.fullnameOverride | default .Release.Name) -}}
{{- if not (or .Values.fullnameOverride (contains $name $full)) -}}
{{- $full = printf "%s-%s" $full $name -}}
{{- end -}}
{{- if regexMatch "^([0-9]|$)" $full -}}
{{- $full = printf "pat-operator-%s" ($full | trimSuffix (printf "-%s" $name)) -}}
{{- end -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of a component's objects; takes the component's context, see pat-operator.component. */}}
{{- define "pat-operator.name" -}}
{{- printf "%s-%s" (include "pat-operator.fullname" .root) .component -}}
{{- end -}}

{{/* The name of a component's ServiceAccount. */}}
{{- define "pat-operator.serviceAccountName" -}}
{{- .values.serviceAccount.name | default (include "pat-operator.name" .) -}}
{{- end -}}

{{/* The user name of a component's ServiceAccount in the API server. */}}
{{- define "pat-operator.username" -}}
{{- printf "system:serviceaccount:%s:%s" .root.Release.Namespace (include "pat-operator.serviceAccountName" .) -}}
{{- end -}}

{{/*
The labels that select a component's Pods. They cannot change in an upgrade, so they do not depend on values. The name of the chart is its
alias if a parent chart sets one, which keeps two dependencies of one release apart.
*/}}
{{- define "pat-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/*
The labels of an object. Takes root, component unless the object belongs to none, and optionally more: labels that precede commonLabels and
those of the chart. No labels precede the ones that select Pods.
*/}}
{{- define "pat-operator.labels" -}}
{{- $chart := dict
      "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
      "app.kubernetes.io/version" .root.Chart.AppVersion
      "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $selector := include "pat-operator.selectorLabels" . | fromYaml -}}
{{- merge (dict) $selector (.more | default dict) (.root.Values.commonLabels | default dict) $chart | toYaml -}}
{{- end -}}

{{/* The image. */}}
{{- define "pat-operator.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The name of the Secret with a component's serving certificate; empty for plain text. Fails unless exactly one source is set. */}}
{{- define "pat-operator.tlsSecretName" -}}
{{- $tls := .values.tls -}}
{{- $chosen := list -}}
{{- if $tls.secretName }}{{ $chosen = append $chosen "secretName" }}{{ end -}}
{{- if $tls.certManager.enabled }}{{ $chosen = append $chosen "certManager" }}{{ end -}}
{{- if $tls.selfSigned.enabled }}{{ $chosen = append $chosen "selfSigned" }}{{ end -}}
{{- if $tls.insecure }}{{ $chosen = append $chosen "insecure" }}{{ end -}}
{{- if not $chosen -}}
{{- fail (printf "%s.tls: set one of selfSigned.enabled (the controller issues and renews the certificate), secretName (a Secret with a certificate), certManager.enabled, or insecure (if something else encrypts the traffic, such as a service mesh)" .component) -}}
{{- else if gt (len $chosen) 1 -}}
{{- fail (printf "%s.tls: %s exclude each other: set only one of secretName (your own Secret), certManager and selfSigned (which create one), and insecure (plain text)" .component (join " and " $chosen)) -}}
{{- end -}}
{{- $name := include "pat-operator.name" . -}}
{{- if $tls.secretName -}}
{{- $tls.secretName -}}
{{- else if $tls.certManager.enabled -}}
{{- if not $tls.certManager.issuerRef.name -}}
{{- fail (printf "%s.tls.certManager.issuerRef: set the name of the Issuer that signs the certificate" .component) -}}
{{- end -}}
{{- printf "%s-tls" $name -}}
{{- else if $tls.selfSigned.enabled -}}
{{- if not .root.Values.controller.enabled -}}
{{- fail (printf "%s.tls.selfSigned: the controller issues the certificate: set controller.enabled, or another field of %s.tls" .component .component) -}}
{{- end -}}
{{- printf "%s-serving" $name -}}
{{- end -}}
{{- end -}}

{{/* The DNS names of a component's server as a JSON list: those of its Service, then .more. */}}
{{- define "pat-operator.dnsNames" -}}
{{- $name := include "pat-operator.name" . -}}
{{- $namespace := .root.Release.Namespace -}}
{{- concat (list (printf "%s.%s.svc" $name $namespace) (printf "%s.%s" $name $namespace) $name) (.more | default list) | toJson -}}
{{- end -}}

{{/* The rules that a component needs in each of its namespaces. */}}
{{- define "pat-operator.controllerRules" -}}
- apiGroups: [pat-operator.io]
  resources: [personalaccesstokens]
  verbs: [get, list, watch]
- apiGroups: [pat-operator.io]
  resources: [personalaccesstokens/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{- /* The rights for tokens of other systems: the finalizer of their PersonalAccessTokens, the issuers, and the UID of the cluster. */}}
{{- define "pat-operator.issuerRules" -}}
- apiGroups: [pat-operator.io]
  resources: [personalaccesstokens]
  verbs: [patch]
- apiGroups: [pat-operator.io]
  resources: [clustertokenissuers{{ if .Values.controller.issuers.namespaced }}, tokenissuers{{ end }}]
  verbs: [list, watch, patch]
- apiGroups: [pat-operator.io]
  resources: [clustertokenissuers/status{{ if .Values.controller.issuers.namespaced }}, tokenissuers/status{{ end }}]
  verbs: [patch]
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end -}}

{{- define "pat-operator.verifierRules" -}}
- apiGroups: [pat-operator.io]
  resources: [personalaccesstokens]
  verbs: [get, list, watch]
- apiGroups: [pat-operator.io]
  resources: [personalaccesstokens/status]
  verbs: [patch]
{{- end -}}

{{/*
A Role or ClusterRole and its binding. Takes root, component, values, kind, name, namespace (for a Role) and rules.

The name begins with the namespace of the release: releases of the same name in other namespaces must not share cluster-wide objects, or
Roles in one namespace. Neither part contains a colon.
*/}}
{{- define "pat-operator.grant" -}}
{{- $name := printf "%s:%s" .root.Release.Namespace .name -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ $name | quote }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ $name | quote }}
  {{- with .namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ $name | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ include "pat-operator.serviceAccountName" . | quote }}
    namespace: {{ .root.Release.Namespace | quote }}
{{- end -}}

{{/* A component's ServiceAccount. */}}
{{- define "pat-operator.serviceAccount" -}}
{{- if .values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "pat-operator.serviceAccountName" . | quote }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A component's Deployment. In addition to root, component and values, it takes args, ports, and tlsSecretName if it serves with TLS. */}}
{{- define "pat-operator.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "pat-operator.name" . }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicas }}
  selector:
    matchLabels:
      {{- include "pat-operator.selectorLabels" . | nindent 6 }}
  strategy:
    # A new Pod must be ready before an old one stops, even with one replica.
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels:
        {{- include "pat-operator.labels" (merge (dict "more" .values.podLabels) .) | nindent 8 }}
      annotations:
        {{- $annotations := dict "kubectl.kubernetes.io/default-container" .component }}
        {{- merge (dict) (.values.podAnnotations | default dict) $annotations | toYaml | nindent 8 }}
    spec:
      serviceAccountName: {{ include "pat-operator.serviceAccountName" . | quote }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: {{ .component }}
          image: {{ include "pat-operator.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args:
            - {{ .component }}
            {{- $log := .root.Values.log }}
            {{- $own := concat .args (list (printf "--log-format=%s" $log.format) (printf "--log-level=%s" $log.level)) }}
            {{- /* A flag in extraArgs replaces the chart's own, except for the flag that can be repeated. */}}
            {{- $given := list }}
            {{- range .values.extraArgs }}{{ $given = append $given (splitList "=" . | first) }}{{ end }}
            {{- $given = without $given "--serving-certificate" }}
            {{- range $own }}
            {{- if not (has (splitList "=" . | first) $given) }}
            - {{ . | quote }}
            {{- end }}
            {{- end }}
            {{- range .values.extraArgs }}
            - {{ . | quote }}
            {{- end }}
          env:
            {{- $variables := list }}
            {{- range .values.extraEnv }}{{ $variables = append $variables .name }}{{ end }}
            {{- if not (has "POD_NAME" $variables) }}
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            {{- end }}
            {{- with .values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: health
              containerPort: 8080
            {{- range $name, $port := .ports }}
            - name: {{ $name }}
              containerPort: {{ $port }}
            {{- end }}
          livenessProbe:
            httpGet:
              path: /livez
              port: health
            periodSeconds: 10
            timeoutSeconds: 5
          readinessProbe:
            httpGet:
              path: /readyz
              port: health
            periodSeconds: 5
            timeoutSeconds: 5
          # The first list of many tokens takes some time.
          startupProbe:
            httpGet:
              path: /livez
              port: health
            periodSeconds: 2
            failureThreshold: 30
          {{- if .ports }}
          # Waits until clients send no new requests to this Pod.
          lifecycle:
            preStop:
              sleep:
                seconds: 5
          {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          {{- if .tlsSecretName }}
          volumeMounts:
            - name: tls
              mountPath: /etc/pat-operator/tls
              readOnly: true
          {{- end }}
      {{- if .tlsSecretName }}
      volumes:
        - name: tls
          secret:
            secretName: {{ .tlsSecretName | quote }}
            # Mount only these keys: the Secret of a self-signed certificate also contains the key of its authority.
            items:
              - {key: tls.crt, path: tls.crt}
              - {key: tls.key, path: tls.key}
            # 0444: the user of the image is not root, and does not own these files.
            defaultMode: 292
      {{- end }}
      {{- with .values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      topologySpreadConstraints:
        {{- if .values.topologySpreadConstraints }}
        {{- toYaml .values.topologySpreadConstraints | nindent 8 }}
        {{- else }}
        {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - topologyKey: {{ $key }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "pat-operator.selectorLabels" $ | nindent 14 }}
        {{- end }}
        {{- end }}
{{- end -}}

{{/* A component's PodDisruptionBudget. */}}
{{- define "pat-operator.podDisruptionBudget" -}}
{{- if .values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "pat-operator.name" . }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # A Pod that is not ready must not block the drain of a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "pat-operator.selectorLabels" . | nindent 6 }}
{{- end }}
{{- end -}}

{{/* A component's NetworkPolicy. In addition to root, component and values, it takes ports and from. */}}
{{- define "pat-operator.networkPolicy" -}}
{{- $settings := .root.Values.networkPolicy }}
{{- if $settings.enabled }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "pat-operator.name" . }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "pat-operator.selectorLabels" . | nindent 6 }}
  policyTypes:
    - Ingress
    {{- if $settings.egress.enabled }}
    - Egress
    {{- end }}
  ingress:
    - ports:
        - port: health
      {{- with $settings.metricsFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- if .ports }}
    - ports:
        {{- range $name, $port := .ports }}
        - port: {{ $name }}
        {{- end }}
      {{- with .from }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    {{- end }}
  {{- if $settings.egress.enabled }}
  egress:
    - ports:
        {{- range $settings.egress.apiServerPorts }}
        - port: {{ . }}
        {{- end }}
    - ports:
        - port: 53
          protocol: UDP
        - port: 53
  {{- end }}
{{- end }}
{{- end -}}

{{/* A component's Service. In addition to root, component and values, it takes ports (in the syntax of Pods) and servicePorts. */}}
{{- define "pat-operator.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "pat-operator.name" . }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.service.type }}
  selector:
    {{- include "pat-operator.selectorLabels" . | nindent 4 }}
  ports:
    {{- range $name, $port := .servicePorts }}
    - name: {{ $name }}
      port: {{ $port }}
      targetPort: {{ $name }}
    {{- end }}
{{- end -}}

{{/* A component's Certificate, if cert-manager creates its Secret. */}}
{{- define "pat-operator.certificate" -}}
{{- $settings := .values.tls.certManager }}
{{- if $settings.enabled }}
{{- $name := include "pat-operator.name" . }}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "pat-operator.labels" . | nindent 4 }}
spec:
  secretName: {{ .tlsSecretName | quote }}
  duration: {{ $settings.duration }}
  renewBefore: {{ $settings.renewBefore }}
  usages: [server auth]
  privateKey:
    algorithm: ECDSA
    size: 256
    rotationPolicy: Always
  dnsNames:
    {{- range include "pat-operator.dnsNames" (merge (dict "more" $settings.dnsNames) .) | fromJsonArray }}
    - {{ . | quote }}
    {{- end }}
  issuerRef:
    {{- toYaml $settings.issuerRef | nindent 4 }}
{{- end }}
{{- end -}}

{{/*
Fails if something else installed these CustomResourceDefinitions, because Helm's own message does not say what to do. Takes root and names.
`helm template` knows nothing of a cluster.
*/}}
{{- define "pat-operator.checkOwnerOfCrds" -}}
{{- $release := .root.Release -}}
{{- $foreign := list -}}
{{- $by := "another tool" -}}
{{- range $crd := .names -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $crd -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $name := index $annotations "meta.helm.sh/release-name" | default "" -}}
{{- $namespace := index $annotations "meta.helm.sh/release-namespace" | default "" -}}
{{- if or (ne $name $release.Name) (ne $namespace $release.Namespace) -}}
{{- $foreign = append $foreign $crd -}}
{{- if $name }}{{ $by = printf "release %s in namespace %s" $name $namespace }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $foreign -}}
{{- $crds := join " " $foreign -}}
{{- fail (printf "crds: %s has installed %s: set crds.enabled to false, and keep them at the version of this release or newer. To manage them with this release instead: kubectl label crd %s app.kubernetes.io/managed-by=Helm --overwrite && kubectl annotate crd %s meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s --overwrite" $by $crds $crds $crds $release.Name $release.Namespace) -}}
{{- end -}}
{{- end -}}
