package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// TestVerify_NamesEveryKindOfObject spoils one object of every kind in a repository that the program itself filled:
// `verify all` exits 3 and names it, and only it. internal/verify has the campaign with all ways to spoil them.
func TestVerify_NamesEveryKindOfObject(t *testing.T) {
	p := protect(t)
	p.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	p.run(t, "backup", "orders", "--local").must(t, 0)
	p.promote(t)
	p.run(t, "backup", "orders", "--local").must(t, 0)
	p.archive(t)
	p.run(t, "verify", "orders", "--local").must(t, 0)
	p.run(t, "drill", "orders", "--local").must(t, 0)
	p.leaveUnfinished(t)
	all := []string{"verify", "orders", "all", "--local", "--json"}
	p.run(t, all...).must(t, 0)

	kinds := p.oneOfEachKind(t)
	for _, place := range repo.Places() {
		if place.Kind != repo.KindWAL && kinds[place.Name] == "" {
			t.Errorf("the repository has no %s", place.Name)
		}
	}
	for kind := pg.WALSegment; kind <= pg.WALBackupHistory; kind++ {
		if kinds[kind.String()] == "" {
			t.Errorf("the repository has no %s", kind)
		}
	}
	for kind, key := range kinds {
		t.Run(strings.ReplaceAll(kind, " ", "-"), func(t *testing.T) {
			defer p.spoil(t, key)()
			res, _, findings := p.run(t, all...).must(t, 3).verified(t)
			if res["verdict"] != "FAIL" || len(findings) == 0 || !strings.Contains(p.run(t, all[:4]...).must(t, 3).stdout, key) {
				t.Errorf("%s: %v", key, res)
			}
			named := false
			for _, f := range findings {
				named = named || f["object"] == key
			}
			if !named {
				t.Errorf("%s is not named: %v", key, findings)
			}
		})
	}
	t.Run("listings show what is whole", func(t *testing.T) { p.checkListings(t, kinds) })
	p.run(t, all...).must(t, 0)
	t.Logf("kinds: %v", kinds)
}

// promote takes the server to timeline 2: the archive gets a partial segment and a history.
func (p *protected) promote(t *testing.T) {
	t.Helper()
	p.Exec(t, "alter system set restore_command = 'false'")
	p.Stop(t)
	signal := filepath.Join(p.DataDir, "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(signal); err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	p.archive(t)
}

// leaveUnfinished leaves what a backup leaves that dies: an intent and a checkpoint.
func (p *protected) leaveUnfinished(t *testing.T) {
	t.Helper()
	r, err := assemble.OpenRepository(t.Context(), "file://"+p.repo, false)
	if err != nil {
		t.Fatal(err)
	}
	id := repo.NewBackupID(time.Now(), repo.Full)
	if err := r.PutIntent(t.Context(), "orders", repo.Intent{BackupID: id, Host: "gone"}); err != nil {
		t.Fatal(err)
	}
	w, err := r.NewWriter(t.Context(), repo.WriterOptions{Cluster: "orders", BackupID: id, CheckpointEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	f, err := w.File(t.Context(), repo.Entry{Path: "one", Mode: 0o600})
	if err == nil {
		_, err = f.ReadFrom(strings.NewReader("content"))
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "a checkpoint is there", func() bool {
		found, _ := filepath.Glob(p.repo + "/clusters/orders/intents/" + id + "/run-*")
		return len(found) > 0
	})
}

// oneOfEachKind gives the newest key of each kind of object.
func (p *protected) oneOfEachKind(t *testing.T) map[string]string {
	t.Helper()
	r, err := assemble.OpenRepository(t.Context(), "file://"+p.repo, false)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{"header": repo.HeaderKey}
	for o, err := range r.Objects(t.Context(), "orders") {
		if err != nil {
			t.Fatal(err)
		}
		below := strings.TrimPrefix(o.Key, "clusters/orders/")
		first, _, _ := strings.Cut(below, "/")
		kind := "document " + first
		for _, place := range repo.Places() {
			if ok, _ := path.Match(place.Pattern, below); ok {
				kind = place.Name
			}
		}
		if f, err := pg.ParseWALFileName(path.Base(o.Key)); err == nil {
			kind = f.Kind.String()
		}
		kinds[kind] = o.Key
	}
	return kinds
}

// spoil flips one bit in the middle of an object, and returns what puts it back.
func (p *protected) spoil(t *testing.T, key string) (mend func()) {
	t.Helper()
	return p.spoilAt(t, key, func(n int) int { return n / 2 })
}

func (p *protected) spoilAt(t *testing.T, key string, at func(n int) int) (mend func()) {
	t.Helper()
	file := filepath.Join(p.repo, key)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(whole)
	bad[at(len(bad))] ^= 4
	write := func(data []byte) {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	return func() { write(whole) }
}

// checkListings: a damaged manifest, verification or report hides no other, and is told.
func (p *protected) checkListings(t *testing.T, kinds map[string]string) {
	defer p.spoil(t, kinds["manifest"])()
	defer p.spoil(t, kinds["document verifications"])()
	defer p.spoil(t, kinds["document reports"])()
	got := p.run(t, "backups", "orders", "--json").must(t, 1)
	list := decodeObject(t, got.stdout)["backups"].([]any)
	if len(list) != 1 || strings.HasSuffix(kinds["manifest"], list[0].(map[string]any)["backupId"].(string)) {
		t.Errorf("backups lists %v", list)
	}
	contains(t, "error", got.stderr, kinds["manifest"])
	reports := p.run(t, "reports", "orders", "--json").must(t, 0).object(t)["reports"].([]any)
	if len(reports) != 1 || reports[0].(map[string]any)["verdict"] != string(contract.CouldNotVerify) {
		t.Errorf("reports lists %v", reports)
	}
}

// TestVerify_CouldNotVerify: what cannot be looked at is neither PASS nor FAIL, and exits 4.
func TestVerify_CouldNotVerify(t *testing.T) {
	p := protect(t)
	id := p.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)["backupId"].(string)
	p.archive(t)
	t.Run("an object that may not be read", func(t *testing.T) {
		packs, err := filepath.Glob(p.repo + "/clusters/orders/data/*/*")
		if err != nil || len(packs) == 0 {
			t.Fatalf("packs %v, %v", packs, err)
		}
		if err := os.Chmod(packs[0], 0); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.Chmod(packs[0], 0o644) }()
		cmd := exec.CommandContext(t.Context(), p.program, "verify", "orders", "all", "--local", "--json", "--repository", "file://"+p.repo)
		cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr() // root may read everything
		cmd.Dir = "/"
		out, _ := cmd.Output()
		res := decodeObject(t, string(out))
		if cmd.ProcessState.ExitCode() != 4 || res["verdict"] != "COULD_NOT_VERIFY" || !strings.Contains(string(out), strings.TrimPrefix(packs[0], p.repo+"/")) {
			t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
		}
	})
	t.Run("no server of that major, and another backup that passes", func(t *testing.T) {
		other := p.ofMajor(t, id, 9)
		got := p.run(t, "verify", "orders", other, "--level", "4", "--local", "--json").must(t, 4)
		if res, _, _ := got.verified(t); res["verdict"] != "COULD_NOT_VERIFY" || res["level"] != 3.0 {
			t.Errorf("%v", res)
		}
		contains(t, "findings", got.stdout, "find PostgreSQL 9")
		if res, _, _ := p.run(t, "verify", "orders", "all", "--level", "4", "--local", "--json").must(t, 4).verified(t); res["verdict"] != "PARTIAL" {
			t.Errorf("%v", res)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := lifeboatContext(ctx, p.env, "verify", "orders", "--local"); got.code != 130 {
			t.Errorf("exit code %d: %s", got.code, got.stderr)
		}
	})
}

// ofMajor publishes a backup again under another id, as one of a server of another major version.
func (p *protected) ofMajor(t *testing.T, id string, major int) string {
	t.Helper()
	r, err := assemble.OpenRepository(t.Context(), "file://"+p.repo, false)
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Manifest(t.Context(), "orders", id)
	if err != nil {
		t.Fatal(err)
	}
	m.BackupID, m.PostgresMajor = repo.NewBackupID(time.Now(), repo.Full), major
	if err := r.PutManifest(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m.BackupID
}
