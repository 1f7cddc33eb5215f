// Stands in for main_test.go of the Gateway API's CEL tests: what they send to an API server goes to
// the program that KGW_VALIDATOR names, as lines of JSON, and its answers come back as errors.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	v1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/apis/v1alpha2"
	"sigs.k8s.io/gateway-api/apis/v1alpha3"
	"sigs.k8s.io/gateway-api/apis/v1beta1"
	apisxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

var k8sClient *validator

type validator struct {
	scheme  *runtime.Scheme
	command *exec.Cmd
	in      *json.Encoder
	out     *bufio.Reader
	stored  map[string]json.RawMessage
}

type question struct {
	Operation string          `json:"operation"`
	Object    json.RawMessage `json:"object"`
	Before    json.RawMessage `json:"before,omitempty"`
}

func (v *validator) ask(operation string, object client.Object) error {
	kind, err := apiutil.GVKForObject(object, v.scheme)
	if err != nil {
		return err
	}
	object.GetObjectKind().SetGroupVersionKind(kind)
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	key := kind.Kind + "/" + object.GetNamespace() + "/" + object.GetName()
	if err := v.in.Encode(question{operation, text, v.stored[key]}); err != nil {
		return err
	}
	line, err := v.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the validator has ended: %w", err)
	}
	var wrong []string
	if err := json.Unmarshal(line, &wrong); err != nil {
		return err
	}
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, ", "))
	}
	v.stored[key] = text
	return nil
}

func (v *validator) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	return v.ask("create", object)
}

func (v *validator) Update(_ context.Context, object client.Object, _ ...client.UpdateOption) error {
	return v.ask("update", object)
}

type statusWriter struct{ validator *validator }

func (v *validator) Status() statusWriter { return statusWriter{v} }

func (w statusWriter) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	return w.validator.ask("status", object)
}

func TestMain(m *testing.M) {
	scheme := runtime.NewScheme()
	for _, install := range []func(*runtime.Scheme) error{
		v1alpha3.Install, v1alpha2.Install, v1beta1.Install, v1.Install, apisxv1alpha1.Install, corev1.AddToScheme,
	} {
		if err := install(scheme); err != nil {
			panic(err)
		}
	}
	words := strings.Fields(os.Getenv("KGW_VALIDATOR"))
	command := exec.Command(words[0], words[1:]...)
	command.Dir = os.Getenv("KGW_VALIDATOR_DIRECTORY")
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		panic(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := command.Start(); err != nil {
		panic(err)
	}
	k8sClient = &validator{scheme, command, json.NewEncoder(in), bufio.NewReader(out), map[string]json.RawMessage{}}
	code := m.Run()
	in.Close()
	if err := command.Wait(); err != nil && code == 0 {
		code = 1
	}
	os.Exit(code)
}

// A message is looked for as it is, and in the words of older API servers.
func celErrorStringMatches(got, want string) bool {
	return strings.Contains(got, want) || strings.Contains(got, strings.ReplaceAll(want, "more", "longer"))
}
