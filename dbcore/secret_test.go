package dbcore_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"lifeboat/dbcore"
)

func TestSecretNeverPrints(t *testing.T) {
	const content = "hunter2"
	s := dbcore.NewSecret(content)
	type open struct{ S dbcore.Secret }
	type hidden struct{ s dbcore.Secret } // fmt calls no methods on unexported fields
	values := []any{s, &s, open{s}, &open{s}, hidden{s}, []dbcore.Secret{s}, map[string]any{"k": s}, map[dbcore.Secret]int{s: 1}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%10s", "%T"} {
		for _, v := range values {
			if got := fmt.Sprintf(verb, v); leaks(got, content) {
				t.Errorf("%s of %T prints %s", verb, v, got)
			}
		}
	}
	if got := fmt.Sprintf("%v %s %#v", s, s, s); got != "[redacted] [redacted] [redacted]" {
		t.Errorf("got %s", got)
	}
	if s.String() != "[redacted]" || s.GoString() != "[redacted]" {
		t.Errorf("got %s %s", s.String(), s.GoString())
	}
	out, err := json.Marshal(map[string]any{"a": s, "b": open{s}, "c": map[dbcore.Secret]int{s: 1}})
	if err != nil || leaks(string(out), content) || strings.Count(string(out), "[redacted]") != 3 {
		t.Errorf("JSON %s, %v", out, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "a", s, "b", open{s}, "c", hidden{s})
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "a", s, "b", open{s})
	if leaks(log.String(), content) {
		t.Errorf("slog %s", log.String())
	}
}

// leaks looks for the content also in the forms that %x and %q give.
func leaks(text, content string) bool {
	lower := strings.ToLower(text)
	return strings.Contains(text, content) || strings.Contains(lower, fmt.Sprintf("%x", content))
}

func TestSecretValue(t *testing.T) {
	s := dbcore.NewSecret("a")
	if s.Reveal() != "a" || s != dbcore.NewSecret("a") || s == dbcore.NewSecret("b") || s.IsZero() {
		t.Error("content or comparison is wrong")
	}
	var zero dbcore.Secret
	if zero.Reveal() != "" || !zero.IsZero() || zero != dbcore.NewSecret("") {
		t.Error("the zero value is not the empty secret")
	}
	var in struct{ P dbcore.Secret }
	if err := json.Unmarshal([]byte(`{"P":"x y"}`), &in); err != nil || in.P.Reveal() != "x y" {
		t.Errorf("read %q, %v", in.P.Reveal(), err)
	}
	if err := json.Unmarshal([]byte(`{"P":"[redacted]"}`), &in); err == nil {
		t.Error("a redacted secret was read back")
	}
}
