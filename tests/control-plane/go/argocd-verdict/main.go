// Command argocd-verdict runs Argo CD's own health checks on objects, and its comparison with the manifests in Git.
//
// It reads one JSON document from standard input and writes one to standard output. It uses no cluster.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/v3/common"
	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/argo/diff"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
)

// question is the input.
type question struct {
	// Settings is the `data` of the ConfigMap argocd-cm.
	Settings map[string]string `json:"settings"`
	// Objects to check, one by one.
	Objects []*unstructured.Unstructured `json:"objects"`
	// Pairs to compare.
	Pairs []pair `json:"pairs"`
}

// pair is a manifest in Git, with Argo CD's tracking label, and the live object.
type pair struct {
	Git  *unstructured.Unstructured `json:"git"`
	Live *unstructured.Unstructured `json:"live"`
}

// answer is the output.
type answer struct {
	// Healths of the objects.
	Healths []health.HealthStatus `json:"healths"`
	// Differences of the pairs: null without one, else the object that Argo CD would make.
	Differences []json.RawMessage `json:"differences"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	logrus.SetOutput(os.Stderr)
	logrus.SetLevel(logrus.WarnLevel)
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	overrides, err := overridesOf(asked.Settings)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	said := answer{Healths: []health.HealthStatus{}, Differences: []json.RawMessage{}}
	for _, object := range asked.Objects {
		status, err := health.GetResourceHealth(object, lua.ResourceHealthOverrides(overrides))
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		if status == nil {
			status = &health.HealthStatus{}
		}
		said.Healths = append(said.Healths, *status)
	}
	for _, pair := range asked.Pairs {
		difference, err := differenceOf(pair, overrides)
		if err != nil {
			return fmt.Errorf("%s: %w", pair.Live.GetName(), err)
		}
		said.Differences = append(said.Differences, difference)
	}
	return json.NewEncoder(os.Stdout).Encode(said)
}

// overridesOf lets Argo CD read its settings from a fake API server.
func overridesOf(data map[string]string) (map[string]v1alpha1.ResourceOverride, error) {
	const namespace = "argocd"
	meta := func(name string) metav1.ObjectMeta {
		labels := map[string]string{"app.kubernetes.io/part-of": "argocd"}
		return metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels}
	}
	objects := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: meta(common.ArgoCDConfigMapName), Data: data},
		&corev1.Secret{ObjectMeta: meta(common.ArgoCDSecretName), Data: map[string][]byte{"server.secretkey": []byte("none")}},
	)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return settings.NewSettingsManager(ctx, objects, namespace).GetResourceOverrides()
}

// differenceOf compares as Argo CD does for an application without comparison options, and without a cached result.
func differenceOf(pair pair, overrides map[string]v1alpha1.ResourceOverride) (json.RawMessage, error) {
	config, err := diff.NewDiffConfigBuilder().
		WithDiffSettings(nil, overrides, false, normalizers.IgnoreNormalizerOpts{}).
		WithTracking(common.LabelKeyAppInstance, string(v1alpha1.TrackingMethodAnnotation)).
		WithNoCache().
		WithManager(common.ArgoCDSSAManager).
		WithLogger(logr.Discard()).
		Build()
	if err != nil {
		return nil, err
	}
	result, err := diff.StateDiff(pair.Live, pair.Git, config)
	if err != nil || !result.Modified {
		return nil, err
	}
	return result.PredictedLive, nil
}
