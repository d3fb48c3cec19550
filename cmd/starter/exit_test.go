package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.temporal.io/sdk/temporal"

	"lifeboat/activities"
	"lifeboat/internal/config"
	"lifeboat/internal/contract"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

func TestExitCode(t *testing.T) {
	refused := &recovery.RefusedError{Reason: "the directory is not empty", Hint: "name another"}
	remote := func(kind string) error {
		return &runError{"id", temporal.NewNonRetryableApplicationError("PlanRestore: no", kind, nil)}
	}
	tests := map[string]struct {
		err  error
		exit int
		code string
	}{
		"nothing":                {nil, 0, ""},
		"usage":                  {usagef("bad flag"), 2, "Usage"},
		"no configuration":       {&configError{fmt.Errorf("%w here", config.ErrNotFound)}, 2, "Configuration"},
		"wrong configuration":    {&config.Error{Problems: []config.Problem{{Text: "bad"}}}, 2, "Configuration"},
		"unknown cluster":        {fmt.Errorf("cluster x: %w", config.ErrUnknownName), 2, "Configuration"},
		"worker's configuration": {remote(contract.ErrorConfiguration), 2, "Configuration"},
		"invalid input":          {remote(contract.ErrorInvalidInput), 2, "InvalidInput"},
		"refused here":           {fmt.Errorf("plan: %w", refused), 5, "Refused"},
		"refused there":          {remote(contract.ErrorRefused), 5, "Refused"},
		"another server":         {&repo.IdentityError{Cluster: "c"}, 5, "Refused"},
		"busy there":             {remote(contract.ErrorBusy), 1, "Busy"},
		"no worker there":        {remote("NoWorker"), 1, "NoWorker"},
		"failed":                 {errors.New("disk full"), 1, "Failed"},
		"canceled there":         {&runError{"id", temporal.NewCanceledError()}, 1, "Canceled"},
		"drill failed":           {verdictError(contract.Fail), 3, "Failed"},
		"drill partial":          {verdictError(contract.Partial), 4, "Failed"},
		"drill unproved":         {verdictError(contract.CouldNotVerify), 4, "Failed"},
		"drill passed":           {verdictError(contract.Pass), 0, ""},
		"interrupted":            {&interrupted{context.Canceled}, 130, "Interrupted"},
		"wal absent":             {&fetchError{fmt.Errorf("fetch: %w", wal.ErrAbsent)}, 1, "NotInRepository"},
		"wal damaged":            {&fetchError{errors.New("damaged")}, 126, "Failed"},
		"wal-fetch misused":      {&fetchError{usagef("bad flag")}, 126, "Usage"},
		"wal-fetch, no config":   {&fetchError{&configError{config.ErrNotFound}}, 126, "Configuration"},
		"wal-fetch, refused":     {&fetchError{&activities.ConfigurationError{Message: "no"}}, 126, "Configuration"},
		"wal-fetch terminated":   {&interrupted{&fetchError{context.Canceled}}, 143, "Interrupted"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.exit {
				t.Errorf("exit code %d, want %d", got, tt.exit)
			}
			if tt.err == nil {
				return
			}
			if got := errorCode(tt.err); got != tt.code {
				t.Errorf("code %q, want %q", got, tt.code)
			}
		})
	}
}

func TestProblem_PartsMessageAndHint(t *testing.T) {
	err := &runError{"wf-1", fmt.Errorf("plan: %w", &recovery.RefusedError{Reason: "not empty", Hint: "name another"})}
	want := problem{Code: "Refused", Message: "plan: refused: not empty", Hint: "name another", WorkflowID: "wf-1"}
	if got := problemOf(err); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUsageErrors(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("version: 1\nclustres: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.yaml")
	if err := os.WriteFile(empty, []byte("version: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := environment{"LIFEBOAT_CONFIG": empty}
	tests := map[string]struct {
		args []string
		code string
		says string
	}{
		"unknown command":     {[]string{"bakup"}, "Usage", "did you mean backup"},
		"unknown flag":        {[]string{"backups", "c", "--qiet"}, "Usage", "did you mean --quiet?"},
		"missing argument":    {[]string{"backup"}, "Usage", "missing: CLUSTER"},
		"extra argument":      {[]string{"backup", "c", "d"}, "Usage", `unexpected argument "d"`},
		"empty argument":      {[]string{"backup", ""}, "Usage", "CLUSTER is empty"},
		"missing flag":        {[]string{"wal-push", "x"}, "Usage", "cluster"},
		"backup type":         {[]string{"backup", "c", "--type", "logical"}, "Usage", "not available in this version"},
		"local and detached":  {[]string{"backup", "c", "--local", "--detach"}, "Usage", "--detach does not wait"},
		"identity":            {[]string{"backups", "c", "--identity", "k"}, "Usage", "encryption is not available in this version"},
		"repository, no use":  {[]string{"backup", "c", "--repository", "file:///r"}, "Usage", "takes no --repository"},
		"repository on s3":    {[]string{"backups", "c", "--repository", "s3://b/p"}, "Usage", "s3:// is not available"},
		"bad cluster name":    {[]string{"backups", "../c", "--repository", "file:///r"}, "Usage", "bad name"},
		"no target dir":       {[]string{"restore", "c"}, "Usage", "--target-dir is missing"},
		"take over":           {[]string{"restore", "c", "--target-dir", "/d", "--take-over"}, "Usage", "--take-over is not available"},
		"discard wal":         {[]string{"restore", "c", "--target-dir", "/d", "--discard-wal"}, "Usage", "needs \"delta\""},
		"tablespace":          {[]string{"restore", "c", "--target-dir", "/d", "--tablespace", "a=b"}, "Usage", "write OLD=NEW"},
		"rescue of nothing":   {[]string{"wal-rescue", "c"}, "Usage", "data-directory"},
		"xid":                 {[]string{"restore", "c", "--target-dir", "/d", "--to-xid", "7"}, "Usage", "--to-xid is not available"},
		"port without start":  {[]string{"restore", "c", "--target-dir", "/d", "--port", "5"}, "Usage", `needs "start"`},
		"repository, remote":  {[]string{"restore", "c", "--target-dir", "/d", "--repository", "file:///r"}, "Usage", "give --local"},
		"plan elsewhere":      {[]string{"restore", "c", "--target-dir", "/d", "--plan", "--host", "elsewhere"}, "Usage", "on elsewhere"},
		"unknown scenario":    {[]string{"drill", "c", "--scenario", "fire"}, "Usage", "not available in this version"},
		"disaster, no zone":   {[]string{"drill", "c", "--disaster-at", "2026-01-01T00:00:00"}, "Usage", "--disaster-at: "},
		"no checks":           {[]string{"drill", "c", "--checks", filepath.Join(dir, "none")}, "Configuration", "read checks"},
		"report format":       {[]string{"report", "show", "x", "--format", "pdf"}, "Usage", "text, json or html"},
		"report alone":        {[]string{"report"}, "Usage", "report show ID"},
		"no such file":        {[]string{"status", "--config", filepath.Join(dir, "none.yaml")}, "Configuration", "none.yaml"},
		"broken file":         {[]string{"status", "--config", broken}, "Configuration", "clustres"},
		"unknown cluster":     {[]string{"backups", "c"}, "Configuration", "not in the configuration"},
		"unknown to status":   {[]string{"status", "c"}, "Configuration", "not in the configuration"},
		"unknown to check":    {[]string{"check", "c", "--local"}, "Configuration", "not in the configuration"},
		"unknown to wal-push": {[]string{"wal-push", "p", "--cluster", "c"}, "Configuration", "not in the configuration"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			text := lifeboat(t, env, tt.args...).must(t, 2)
			contains(t, "stderr", text.stderr, "lifeboat: ", tt.says)
			if text.stdout != "" {
				t.Errorf("stdout: %s", text.stdout)
			}
			e := lifeboat(t, env, append([]string{"--json"}, tt.args...)...).must(t, 2).errorObject(t)
			if e["code"] != tt.code {
				t.Errorf("code %v, want %s", e["code"], tt.code)
			}
		})
	}
}

// TestWALFetch_NeverEndsARecoveryByMistake: whatever is wrong with the call, PostgreSQL must not take it for the end of
// WAL (R16), which it does for the exit codes 1 to 125.
func TestWALFetch_NeverEndsARecoveryByMistake(t *testing.T) {
	dir := t.TempDir()
	for name, args := range map[string][]string{
		"no arguments":      {"wal-fetch"},
		"no cluster":        {"wal-fetch", "000000010000000000000001", dir + "/x"},
		"unknown flag":      {"wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c", "--bogus"},
		"flag before":       {"--bogus", "wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c"},
		"no configuration":  {"wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c", "--config", dir + "/none"},
		"identity":          {"wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c", "--identity", "k"},
		"no repository":     {"--repository", "file://" + dir + "/none", "wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c"},
		"wrong url":         {"--repository", "ftp://x", "wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c"},
		"bad need":          {"--repository", "file://" + dir, "wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c", "--need", "x"},
		"two sources":       {"--repository", "file://" + dir, "--config", "x", "wal-fetch", "000000010000000000000001", dir + "/x", "--cluster", "c"},
		"too many":          {"wal-fetch", "a", "b", "c", "--cluster", "c"},
		"value of the flag": {"--repository", "wal-fetch"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lifeboat(t, environment{}, args...); got.code < 126 {
				t.Errorf("exit code %d: %s", got.code, got.stderr)
			}
		})
	}
}

func TestPanic_IsNotWrongUsage(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		code int
	}{
		"wal-fetch": {[]string{"wal-fetch", "a", "b", "--cluster", "c"}, 126},
		"backups":   {[]string{"backups", "c"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs discard
			a := &app{stdout: &out, stderr: &errs, env: func(string) (string, bool) { panic("broken environment") }}
			if got := a.main(t.Context(), tt.args); got != tt.code {
				t.Errorf("exit code %d, want %d", got, tt.code)
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	got := lifeboatContext(ctx, environment{}, "backups", "c", "--repository", "file://"+dir+"/none", "--json")
	if got.code != 130 {
		t.Fatalf("exit code %d, want 130: %s", got.code, got.stderr)
	}
	if e := got.errorObject(t); e["code"] != "Interrupted" {
		t.Errorf("code %v", e["code"])
	}
}
