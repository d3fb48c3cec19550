package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// outcome is what a command left behind.
type outcome struct {
	code           int
	stdout, stderr string
}

// environment is a run's environment; nothing of the test process's own leaks in.
type environment map[string]string

func (e environment) lookup(name string) (string, bool) {
	v, ok := e[name]
	return v, ok
}

// lifeboat runs the program in this process.
func lifeboat(t *testing.T, env environment, args ...string) outcome {
	t.Helper()
	return lifeboatContext(t.Context(), env, args...)
}

func lifeboatContext(ctx context.Context, env environment, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	a := &app{stdout: &stdout, stderr: &stderr, env: env.lookup}
	code := a.main(ctx, args)
	return outcome{code, stdout.String(), stderr.String()}
}

// must fails the test unless the program exited with code.
func (o outcome) must(t *testing.T, code int) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", o.code, code, o.stdout, o.stderr)
	}
	return o
}

// object decodes stdout, which must be exactly one JSON object.
func (o outcome) object(t *testing.T) map[string]any {
	t.Helper()
	return decodeObject(t, o.stdout)
}

func decodeObject(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("no JSON object: %v\n%s", err, text)
	}
	return v
}

// hasKeys checks that v is an object with exactly these keys.
func hasKeys(t *testing.T, what string, v any, keys ...string) map[string]any {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%s is %T, want an object", what, v)
	}
	var have []string
	for k := range object {
		have = append(have, k)
	}
	slices.Sort(have)
	slices.Sort(keys)
	if !slices.Equal(have, keys) {
		t.Errorf("%s has keys %v, want %v", what, have, keys)
	}
	return object
}

// errorObject decodes the JSON error on stderr.
func (o outcome) errorObject(t *testing.T) map[string]any {
	t.Helper()
	outer := hasKeys(t, "stderr", decodeObject(t, o.stderr), "error")
	return hasKeys(t, "error", outer["error"], "code", "message", "hint", "workflowId")
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}
