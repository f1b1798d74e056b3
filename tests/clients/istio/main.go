// Checks JSON against Istio's own API: standard input is one object of {"MeshConfig": …, "AuthorizationPolicy": the spec of one}. A field or a value
// that Istio does not know is told on standard error, and the exit code is 1.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	mesh "istio.io/api/mesh/v1alpha1"
	security "istio.io/api/security/v1beta1"
)

func main() {
	var given map[string]json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	known := map[string]proto.Message{"MeshConfig": &mesh.MeshConfig{}, "AuthorizationPolicy": &security.AuthorizationPolicy{}}
	for kind, text := range given {
		message, ok := known[kind]
		if !ok {
			fmt.Fprintf(os.Stderr, "no %s is known here\n", kind)
			os.Exit(2)
		}
		if err := protojson.Unmarshal(text, message); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", kind, err)
			os.Exit(1)
		}
		fmt.Println(kind)
	}
}
