// Command istiod is Istio's `pilot-discovery` with two more subcommands for tests with the same version.
//
// `istiod crds` prints the CRDs that Istio reads. `istiod mesh` reads a MeshConfig from standard input and rejects unknown
// fields and values, which Istio itself ignores.
package main

import (
	"fmt"
	"io"
	"os"

	mesh "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/manifests"
	"istio.io/istio/pilot/cmd/pilot-discovery/app"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/util/protomarshal"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 1 {
		switch arguments[0] {
		case "crds":
			text, err := manifests.FS.ReadFile("charts/base/files/crd-all.gen.yaml")
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(text)
			return err
		case "mesh":
			text, err := io.ReadAll(os.Stdin)
			if err != nil {
				return err
			}
			return protomarshal.ApplyYAMLStrict(string(text), &mesh.MeshConfig{})
		}
	}
	log.EnableKlogWithCobra()
	return app.NewRootCommand().Execute()
}
