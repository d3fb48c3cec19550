package basebackup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// volatile are files that differ between two backups of a server at rest.
var volatile = []string{"backup_label", "backup_manifest", "global/pg_control"}

// TestTake_StoresWhatPgBasebackupStores compares a backup of a server at rest with that of PostgreSQL's own program, file
// by file: tablespaces (one of them in place), many small files, unlogged tables. The role is no superuser.
func TestTake_StoresWhatPgBasebackupStores(t *testing.T) {
	b := newBench(t, pgtest.Options{
		Checksums: true, Tablespaces: []string{"one", "two"},
		Settings: map[string]string{"autovacuum": "off", "allow_in_place_tablespaces": "on"},
	})
	b.Exec(t, "create tablespace inplace location ''")
	b.fill(t, 3)
	b.Exec(t, "create unlogged table u as select generate_series(1, 10000) g")
	for i := range 60 {
		b.Exec(t, fmt.Sprintf("create table small%d (i int primary key)", i))
	}
	for _, name := range []string{"one", "two", "inplace"} {
		b.Exec(t, fmt.Sprintf("create table in_%s tablespace %s as select g, md5(g::text) from generate_series(1, 5000) g", name, name))
	}
	b.Exec(t, "create role taker login replication")
	b.Exec(t, "checkpoint")

	opts := b.options(t)
	opts.Server = config(t, strings.Replace(b.DSN(""), "user=postgres", "user=taker", 1))
	if !strings.Contains(b.DSN(""), "user=postgres") {
		t.Fatalf("the dsn %s names no user", b.DSN(""))
	}
	seen := &phases{}
	opts.Progress = seen.add
	m, err := b.take(t, opts)
	if err != nil {
		t.Fatal(err)
	}
	seen.check(t, m)
	b.checkManifest(t, m)

	dir := pgtest.TempDir(t)
	args := []string{"-d", b.DSN(""), "-D", dir + "/data", "-X", "none", "-c", "fast"}
	for name, at := range b.Tablespaces {
		args = append(args, "-T", at+"="+dir+"/"+name)
	}
	b.Run(t, "pg_basebackup", args...)
	want := plainFiles(t, dir+"/data")
	got := b.storedFiles(t, m)
	for name, content := range want {
		have, ok := got[name]
		switch {
		case !ok:
			t.Errorf("%s is not in the backup", name)
		case slices.Contains(volatile, name):
		case !bytes.Equal(have, content):
			t.Errorf("%s has other content: %d bytes, want %d", name, len(have), len(content))
		}
	}
	for name := range got {
		if strings.HasPrefix(name, repo.ConfigDir+"/") {
			continue // the configuration beside the data directory
		}
		if _, ok := want[name]; !ok {
			t.Errorf("%s is in the backup, and not in that of pg_basebackup", name)
		}
	}
	if len(got) < 500 {
		t.Errorf("only %d entries were compared", len(got))
	}
	unlogged := b.SQL(t, "select pg_relation_filepath('u')")
	if _, ok := got[unlogged]; ok {
		t.Errorf("%s of an unlogged table is in the backup", unlogged)
	}
	if _, ok := got[unlogged+"_init"]; !ok {
		t.Errorf("%s_init of an unlogged table is missing", unlogged)
	}
	for _, name := range []string{"in_one", "in_two", "in_inplace"} {
		if path := b.SQL(t, "select pg_relation_filepath($1::regclass)", name); len(got[path]) == 0 || !strings.HasPrefix(path, "pg_tblspc/") {
			t.Errorf("%s at %s is not in the backup", name, path)
		}
	}
}

// plainFiles reads a directory, following the links of tablespaces; directories end with a slash.
func plainFiles(t *testing.T, root string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	var walk func(dir, name string)
	walk = func(dir, name string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path, rel := filepath.Join(dir, e.Name()), filepath.Join(name, e.Name())
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				out[rel+"/"] = nil
				walk(path, rel)
				continue
			}
			if out[rel], err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk(root, "")
	return out
}

// storedFiles reads a backup out of the repository.
func (b *bench) storedFiles(t *testing.T, m *repo.Manifest) map[string][]byte {
	t.Helper()
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == repo.TypeDir {
			out[e.Path+"/"] = nil
			continue
		}
		data := make([]byte, e.Size)
		pieces, err := snap.Pieces(t.Context(), &e)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		for _, p := range pieces {
			err := snap.ReadPiece(t.Context(), &p, nil, func(offset int64, plain []byte) error {
				mu.Lock()
				defer mu.Unlock()
				copy(data[offset:], plain)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		out[e.Path] = data
	}
	return out
}

// checkManifest holds a manifest against the server.
func (b *bench) checkManifest(t *testing.T, m *repo.Manifest) {
	t.Helper()
	if got, want := m.SystemID.String(), b.SQL(t, "select system_identifier from pg_control_system()"); got != want {
		t.Errorf("system identifier is %s, want %s", got, want)
	}
	if m.StartLSN == 0 || m.StartLSN >= m.StopLSN || m.Timeline != 1 || m.WALSegmentSize != 16<<20 || !m.DataChecksums ||
		m.Superuser != "postgres" || m.PostgresMajor != b.Bin.Major || !m.ServerManifest || m.MaxConnections != 50 ||
		m.WorkflowID != "w1" || m.Program != "test" || m.Files == 0 || m.SourceBytes == 0 || m.Seconds <= 0 {
		t.Errorf("the manifest is %+v", m)
	}
	want := b.SQL(t, "select string_agg(oid || '=' || pg_tablespace_location(oid), ',' order by oid) from pg_tablespace where pg_tablespace_location(oid) like '/%'")
	var got []string
	slices.SortFunc(m.Tablespaces, func(a, b repo.Tablespace) int { return int(a.OID) - int(b.OID) })
	for _, ts := range m.Tablespaces {
		got = append(got, fmt.Sprintf("%d=%s", ts.OID, ts.Location))
	}
	if strings.Join(got, ",") != want {
		t.Errorf("tablespaces are %v, want %s", got, want)
	}
	for n := uint64(m.StartLSN) >> 24; n <= uint64(m.StopLSN-1)>>24; n++ {
		name := pg.Segment{Timeline: 1, Number: n}.Name(16 << 20)
		if _, err := b.repo.WALHeader(t.Context(), "c1", name); err != nil {
			t.Errorf("the backup is visible, and its WAL is not there: %v", err)
		}
	}
	manifests, intents := b.visible(t)
	if len(manifests) != 1 || manifests[0].BackupID != m.BackupID || len(intents) != 0 {
		t.Errorf("there are %d backups and %d intents, want 1 and none", len(manifests), len(intents))
	}
	lease, err := b.repo.AcquireLease(t.Context(), "c1", "backup", "another", "h", time.Second)
	if err != nil {
		t.Fatalf("the lease was not given back: %v", err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// phases records progress.
type phases struct {
	mu   sync.Mutex
	list []basebackup.Progress
}

func (p *phases) add(x basebackup.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(p.list, x)
}

// check wants every phase in its order, and figures that only rise within a phase.
func (p *phases) check(t *testing.T, m *repo.Manifest) {
	t.Helper()
	var order []string
	var last basebackup.Progress
	for _, x := range p.list {
		if x.Phase != last.Phase {
			order = append(order, x.Phase)
		} else if x.Done < last.Done {
			t.Errorf("progress went back from %+v to %+v", last, x)
		}
		if x.Phase == "copy" && (x.Total <= 0 || x.Done > m.SourceBytes) {
			t.Errorf("progress %+v of %d bytes", x, m.SourceBytes)
		}
		last = x
	}
	// WAL may be there at once.
	if got := strings.Replace(strings.Join(order, " "), " wal", "", 1); got != "checkpoint copy publish" {
		t.Errorf("the phases were %v", order)
	}
}

func TestTake_ProgressRises(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.fill(t, 24)
	g := newGate()
	b.store.Add(g.at("/data/"))
	opts := b.options(t)
	seen := &phases{}
	opts.Progress = seen.add
	ended := b.background(t, opts)
	g.wait(t)
	pgtest.Eventually(t, "progress of the copy", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return slices.ContainsFunc(seen.list, func(p basebackup.Progress) bool { return p.Phase == "copy" && p.Done > 20<<20 })
	})
	close(g.open)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	manifests, _ := b.visible(t)
	seen.check(t, manifests[0])
}

// TestTake_Refuses what it cannot back up, before anything is written.
func TestTake_Refuses(t *testing.T) {
	var unsupported *basebackup.UnsupportedError
	refused := func(t *testing.T, s *pgtest.Server, want string) {
		t.Helper()
		store := mem.New()
		r, err := repo.OpenOrCreate(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		_, err = basebackup.Take(t.Context(), basebackup.Options{Repo: r, Cluster: "c1", Server: config(t, s.DSN("")), WorkflowID: "w"})
		if !errors.As(err, &unsupported) || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %q in it", err, want)
		}
		for info, err := range store.List(t.Context(), "clusters/", "") {
			t.Errorf("%s was written (%v)", info.Key, err)
		}
	}
	s := pgtest.New(t, pgtest.Options{})
	refused(t, s, "archive_mode is off")
	s.Stop(t)
	settings := func(text string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	settings("wal_level = minimal\nmax_wal_senders = 0\n")
	s.Start(t)
	refused(t, s, "wal_level is minimal")
	s.Stop(t)
	settings("wal_level = replica\nmax_wal_senders = 10\narchive_mode = on\n")
	s.Start(t)
	refused(t, s, "archive_command is empty")

	t.Run("another server under the cluster's name", func(t *testing.T) {
		s.Set(t, map[string]string{"archive_command": "false"})
		store := mem.New()
		r, err := repo.OpenOrCreate(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ClaimIdentity(t.Context(), "c1", repo.Identity{SystemID: 7, WALSegmentSize: 16 << 20}); err != nil {
			t.Fatal(err)
		}
		_, err = basebackup.Take(t.Context(), basebackup.Options{Repo: r, Cluster: "c1", Server: config(t, s.DSN("")), WorkflowID: "w"})
		var stranger *repo.IdentityError
		if !errors.As(err, &stranger) {
			t.Errorf("error is %v", err)
		}
		var keys []string
		for info, err := range store.List(t.Context(), "clusters/", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		if len(keys) != 1 {
			t.Errorf("written were %v", keys)
		}
	})

	t.Run("a standby", func(t *testing.T) {
		s.Stop(t)
		signal := filepath.Join(s.DataDir, "standby.signal")
		if err := errors.Join(os.WriteFile(signal, nil, 0o600), pgtest.Owner(t).Chown(signal)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in, err := pginstance.Start(ctx, pginstance.Options{
			Binaries: s.Bin, DataDir: s.DataDir, Owner: pgtest.Owner(t).Name, Port: s.Port, SocketDir: s.SocketDir, LogFile: s.LogFile,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
		if _, err := in.WaitReady(ctx, pginstance.Accepting); err != nil {
			t.Fatal(err)
		}
		refused(t, s, "is a standby")
	})
}

func TestTake_NeedsAServerAndAWorkflow(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	opts := b.options(t)
	opts.WorkflowID = ""
	if _, err := b.take(t, opts); err == nil {
		t.Error("a backup without a workflow was taken")
	}
	opts = b.options(t)
	b.Stop(t)
	if _, err := b.take(t, opts); err == nil {
		t.Error("a backup of a stopped server was taken")
	}
	if manifests, intents := b.visible(t); len(manifests)+len(intents) != 0 {
		t.Errorf("%d backups and %d intents", len(manifests), len(intents))
	}
}

// TestTake_WaitsForItsWAL: a backup whose WAL never comes is not visible, and says where to look.
func TestTake_WaitsForItsWAL(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	good := b.SQL(t, "show archive_command")
	b.Set(t, map[string]string{"archive_command": "PGPASSWORD=hunter2 /bin/false %p"})
	opts := b.options(t)
	opts.WALTimeout, opts.CheckpointEvery = 1500*time.Millisecond, 50*time.Millisecond
	_, err := b.take(t, opts)
	var noWAL *basebackup.WALTimeoutError
	if !errors.As(err, &noWAL) || !strings.Contains(err.Error(), "archive_command") || !strings.Contains(err.Error(), "/bin/false") {
		t.Fatalf("error is %v", err)
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret is in the error: %v", err)
	}
	if !strings.Contains(err.Error(), "pg_stat_archiver: ") {
		t.Errorf("the error does not tell what the server knows: %v", err)
	}
	manifests, intents := b.visible(t)
	if len(manifests) != 0 || len(intents) != 1 || intents[0].WorkflowID != "w1" {
		t.Errorf("there are %d backups and intents %+v, want none and one", len(manifests), intents)
	}
	b.Set(t, map[string]string{"archive_command": good})
	m, err := b.take(t, b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.ChangedBytes > m.SourceBytes/10 {
		t.Errorf("the second attempt stored %d of %d bytes again", m.ChangedBytes, m.SourceBytes)
	}
	if manifests, intents = b.visible(t); len(manifests) != 1 || len(intents) != 0 {
		t.Errorf("there are %d backups and %d intents, want 1 and none", len(manifests), len(intents))
	}
}

func TestWithoutSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"lifeboat wal-push %p --cluster orders":         "lifeboat wal-push %p --cluster orders",
		"PGPASSWORD=x cp %p /a/%f":                      "PGPASSWORD=… cp %p /a/%f",
		"A=b@c D='e f' wal-g wal-push %p":               "A=… D=… wal-g wal-push %p",
		`push --secret-key "a b" --token=c %p`:          `push --secret-key … --token=… %p`,
		"rsync %p https://me:word@host/a?x":             "rsync %p https://…@host/a?x",
		"test ! -f /mnt/%f && cp %p /mnt/%f":            "test ! -f /mnt/%f && cp %p /mnt/%f",
		"curl -T %p https://host/%f --password p@ss -v": "curl -T %p https://host/%f --password … -v",
	} {
		if got := basebackup.WithoutSecrets(in); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", in, got, want)
		}
	}
}
