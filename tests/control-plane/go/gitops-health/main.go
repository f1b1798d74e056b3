// What GitOps tools say of objects, by the code that they themselves judge by.
//
// Flux: its own reader of `healthCheckExprs`, and kstatus. Argo CD: its interpreter of Lua, set up as it sets it up (its module
// needs a newer Go and half the world). It reads one JSON document and writes one; it must not know any kind of object that it judges.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	helm "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"
)

// question is what is read.
type question struct {
	// Lua has a health check by `<group>_<kind>`, as `resource.customizations.health.` has them in argocd-cm.
	Lua map[string]string `json:"lua"`
	// Expressions is the list `healthCheckExprs` of a Kustomization.
	Expressions json.RawMessage `json:"expressions"`
	// Objects are judged one by one.
	Objects []json.RawMessage `json:"objects"`
	// Releases are HelmReleases of Flux, which have to be read without a rest.
	Releases []json.RawMessage `json:"releases"`
}

// answer is what is said of one object.
type answer struct {
	Argo    verdict  `json:"argo"`
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
		// Whole numbers are whole numbers, as in what comes from an API server.
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return fmt.Errorf("objects: %w", err)
		}
		var said answer
		if said.Argo, err = argo(asked.Lua, object); err != nil {
			return fmt.Errorf("%s: %w", object.GetName(), err)
		}
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

// argo runs a health check as Argo CD's util/lua does: the base and table libraries and no others, one second, the object as `obj`.
func argo(scripts map[string]string, object *unstructured.Unstructured) (verdict, error) {
	kind := object.GroupVersionKind()
	script, ok := scripts[kind.Group+"_"+kind.Kind]
	if !ok {
		return verdict{}, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return verdict{}, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("actionParams", state.NewTable())
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	encoded, err := luajson.Encode(state.Get(-1))
	if err != nil {
		return verdict{}, err
	}
	var said verdict
	if err := json.Unmarshal(encoded, &said); err != nil {
		return verdict{}, fmt.Errorf("not a health: %s", encoded)
	}
	switch said.Status {
	case "Unknown", "Progressing", "Suspended", "Healthy", "Degraded", "Missing":
		return said, nil
	}
	return verdict{}, fmt.Errorf("Lua returned an invalid health status: %s", encoded)
}

// value is what a part of an object is in Lua.
func value(state *lua.LState, part any) lua.LValue {
	switch part := part.(type) {
	case bool:
		return lua.LBool(part)
	case int64:
		return lua.LNumber(part)
	case float64:
		return lua.LNumber(part)
	case string:
		return lua.LString(part)
	case []any:
		table := state.CreateTable(len(part), 0)
		for _, item := range part {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(part))
		for key, item := range part {
			table.RawSetH(lua.LString(key), value(state, item))
		}
		return table
	}
	return lua.LNil
}
