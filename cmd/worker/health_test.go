package main

import (
	"strings"
	"testing"

	"lifeboat/internal/contract"
)

// TestHealth_ThroughTemporal: `lifeboat health` asks a worker, and exits by what it finds.
func TestHealth_ThroughTemporal(t *testing.T) {
	s := newStack(t, map[string]string{"archive_timeout": "60"})
	s.worker(t, "worker")
	out, _ := s.lifeboat(t, 3, "health", "c1", "--json", "--config", s.config)
	res := decode[contract.HealthCheckResult](t, out)
	if res.Verdict != contract.Fail || !strings.HasPrefix(res.WorkflowID, "lifeboat-health-c1-") || len(res.Findings) == 0 || res.Findings[0].Severity != "critical" {
		t.Errorf("before the first backup: %+v", res)
	}
	s.lifeboat(t, 0, "backup", "c1", "--config", s.config)
	out, _ = s.lifeboat(t, 0, "health", "c1", "--config", s.config)
	for _, text := range []string{"warning  fsync  fsync is off", "-> set fsync = on", "PASS  c1, 1 findings, exposure"} {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in:\n%s", text, out)
		}
	}
	if f := s.fails(t, 2, contract.ErrorConfiguration, "health", "c2", "--config", s.config); !strings.Contains(f.Error.Message, "c2") {
		t.Errorf("of an unknown cluster: %+v", f)
	}
}
