// Command flux-verdict runs Flux's own health checks on objects: its evaluation of `healthCheckExprs`, and kstatus.
//
// It reads one JSON document from standard input and writes one to standard output.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helm "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// question is the input.
type question struct {
	// Expressions is the list `healthCheckExprs` of a Kustomization.
	Expressions json.RawMessage `json:"expressions"`
	// Objects to check, one by one.
	Objects []json.RawMessage `json:"objects"`
	// Releases are HelmReleases of Flux. An unknown field is an error.
	Releases []json.RawMessage `json:"releases"`
}

// answer is the output for one object.
type answer struct {
	Flux    *verdict `json:"flux"`
	Kstatus verdict  `json:"kstatus"`
}

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	var checks []kustomize.CustomHealthCheck
	if err := yaml.UnmarshalStrict(asked.Expressions, &checks); err != nil {
		return fmt.Errorf("expressions: %w", err)
	}
	newReader, err := cel.NewStatusReader(checks)
	if err != nil {
		return fmt.Errorf("expressions: %w", err)
	}
	reader := newReader(nil)
	for _, text := range asked.Releases {
		if err := yaml.UnmarshalStrict(text, &helm.HelmRelease{}); err != nil {
			return fmt.Errorf("releases: %w", err)
		}
	}
	answers := make([]answer, 0, len(asked.Objects))
	for _, text := range asked.Objects {
		// Integers stay integers, as in objects from an API server.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return fmt.Errorf("objects: %w", err)
		}
		var said answer
		if reader.Supports(object.GroupVersionKind().GroupKind()) {
			read, err := reader.ReadStatusForObject(context.Background(), nil, object)
			if err != nil {
				return fmt.Errorf("%s: %w", object.GetName(), err)
			}
			message := read.Message
			if read.Error != nil {
				message = read.Error.Error()
			}
			said.Flux = &verdict{Status: string(read.Status), Message: message}
		}
		computed, err := status.Compute(object)
		if err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
		said.Kstatus = verdict{Status: string(computed.Status), Message: computed.Message}
		answers = append(answers, said)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}
