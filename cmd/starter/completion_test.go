package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/repo"
)

// offered asks the program as a shell does. The last word is the one that is being typed.
func offered(t *testing.T, env environment, words ...string) []string {
	t.Helper()
	got := lifeboat(t, env, append([]string{"__complete"}, words...)...).must(t, 0)
	if strings.Contains(got.stderr, "error") {
		t.Errorf("%q: stderr: %s", words, got.stderr)
	}
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, ":") {
		t.Fatalf("%q: no directive: %s", words, got.stdout)
	}
	return lines[:len(lines)-1]
}

// withReport is a configuration with two clusters, one of which has a report.
func withReport(t *testing.T) (env environment, url, report string) {
	t.Helper()
	dir := t.TempDir()
	url = "file://" + dir + "/repo"
	r, err := assemble.OpenRepository(t.Context(), url, true)
	if err != nil {
		t.Fatal(err)
	}
	identity := repo.Identity{SystemID: 7, WALSegmentSize: 16 << 20}
	if err := r.ClaimIdentity(t.Context(), "orders", identity); err != nil {
		t.Fatal(err)
	}
	report = "20261125T201011Z-1f3a9c"
	if err := r.PutDocument(t.Context(), "orders", reportsPrefix+report, contract.Report{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lifeboat.yaml")
	text := "version: 1\nrepositories: {main: {url: \"" + url + "\"}, gone: {url: \"file://" + dir + "/gone\"}}\n" +
		"clusters:\n  orders: {dsn: \"host=h user=u\", repository: main}\n  offline: {dsn: \"host=h user=u\", repository: gone}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return environment{"LIFEBOAT_CONFIG": file}, url, report
}

func TestCompletion(t *testing.T) {
	env, url, report := withReport(t)
	both := []string{"offline", "orders"}
	for line, want := range map[string][]string{
		"backup ":                           both,
		"backups or":                        {"orders"},
		"check ":                            both,
		"status o":                          both,
		"restore ":                          both,
		"drill ":                            both,
		"reports off":                       {"offline"},
		"wal-status ":                       both,
		"wal-push x --cluster ":             both,
		"report show --cluster ":            both,
		"verify orders ":                    {"latest", "all"},
		"verify orders a":                   {"all"},
		"verify offline ":                   {"latest", "all"}, // its repository cannot be opened
		"show orders l":                     {"latest"},
		"report show ":                      {report},
		"backup orders --type ":             {"full", "incremental"},
		"report show x --format h":          {"html"},
		"backup orders ":                    nil,
		"backups --repository " + url + " ": {"orders"},
		"verify --repository " + url + " orders --level ": {"0", "1", "2", "3", "4", "5"},
		"backups --repository file:///nowhere ":           nil,
		"backups --config /nowhere.yaml ":                 nil,
		"comp":                                            {"completion"},
	} {
		words := strings.Split(line, " ")
		got := offered(t, env, words...)
		for i := range got {
			got[i], _, _ = strings.Cut(got[i], "\t") // what follows describes it
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if got := offered(t, environment{}, "backup", ""); len(got) > 0 {
		t.Errorf("without a configuration: %q", got)
	}
}

// TestCompletion_Scripts: each shell takes the script that is printed for it, where the shell is installed.
func TestCompletion_Scripts(t *testing.T) {
	for shell, says := range map[string]string{"bash": "__start_lifeboat", "zsh": "#compdef lifeboat", "fish": "complete -c lifeboat"} {
		t.Run(shell, func(t *testing.T) {
			script := lifeboat(t, environment{}, "completion", shell).must(t, 0).stdout
			contains(t, "script", script, says)
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed: its script was not parsed", shell)
			}
			cmd := exec.CommandContext(t.Context(), path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v: %s", shell, err, out)
			}
		})
	}
}
