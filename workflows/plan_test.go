package workflows

import "testing"

func TestSystemIdentifier(t *testing.T) {
	for raw, want := range map[string]string{`"7300"`: "7300", `7300`: "7300", `null`: "", ``: ""} {
		if got := (planFacts{System: []byte(raw)}).systemIdentifier(); got != want {
			t.Errorf("%s gave %q, want %q", raw, got, want)
		}
	}
}
