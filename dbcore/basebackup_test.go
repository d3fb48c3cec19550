package dbcore_test

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// backup is a base backup as the tests keep it.
type backup struct {
	start    dbcore.LSN
	timeline uint32
	stop     dbcore.StopPosition
	spaces   []dbcore.Tablespace
	archives []dbcore.Archive
	files    map[string]int64 // "base.tar:PG_VERSION" -> size
	links    map[string]string
	manifest []byte
	notices  []dbcore.Notice
	progress int64
}

// take reads a whole base backup through archive/tar, and lays it under dir if that is not "".
func take(t testing.TB, rc *dbcore.ReplicationConn, opts dbcore.BaseBackupOptions, dir string) (backup, error) {
	t.Helper()
	ctx := t.Context()
	b := backup{files: map[string]int64{}, links: map[string]string{}}
	opts.OnNotice = func(n dbcore.Notice) { b.notices = append(b.notices, n) }
	s, err := rc.BaseBackup(ctx, opts)
	if err != nil {
		return b, err
	}
	defer s.Close()
	b.start, b.timeline, b.spaces = s.StartLSN, s.StartTimeline, s.Tablespaces
	for {
		archive, err := s.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, err
		}
		b.archives = append(b.archives, archive)
		if archive.Manifest {
			if b.manifest, err = io.ReadAll(s); err != nil {
				return b, err
			}
			continue
		}
		target := ""
		if dir != "" {
			target = filepath.Join(dir, strings.TrimSuffix(archive.Name, ".tar"))
		}
		if err := b.untar(s, archive.Name, target); err != nil {
			return b, err
		}
	}
	b.stop, err = s.Finish(ctx)
	b.progress = s.Progress()
	return b, err
}

func (b *backup) untar(r io.Reader, name, dir string) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, r) // the padding after the end marker
			return err
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			b.files[name+":"+filepath.Clean(h.Name)+"/"] = 0
			if dir != "" {
				err = os.MkdirAll(path, 0o700)
			}
		case tar.TypeSymlink:
			b.links[filepath.Clean(h.Name)] = h.Linkname // PostgreSQL ends the names of links with a slash
		default:
			b.files[name+":"+h.Name] = h.Size
			w := io.Discard
			if dir != "" {
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					return err
				}
				f, err := os.Create(path)
				if err != nil {
					return err
				}
				defer f.Close()
				w = f
			}
			var n int64
			if n, err = io.Copy(w, tr); err == nil && n != h.Size {
				err = fmt.Errorf("%s has %d of %d bytes", h.Name, n, h.Size)
			}
		}
		if err != nil {
			return err
		}
	}
}

// onDisk lists what a base backup must contain, by the rules of src/backend/backup/basebackup.c.
func onDisk(t *testing.T, name, root string) map[string]int64 {
	t.Helper()
	empty := []string{"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"}
	skip := []string{"postmaster.pid", "postmaster.opts", "pg_internal.init"}
	files := map[string]int64{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case slices.Contains(skip, d.Name()) || d.Name() == "pgsql_tmp":
		case d.IsDir() && slices.Contains(empty, rel):
			files[name+":"+rel+"/"] = 0
			if rel == "pg_wal" {
				files[name+":pg_wal/archive_status/"] = 0
			}
			return fs.SkipDir
		case d.IsDir():
			files[name+":"+rel+"/"] = 0
		case d.Type()&fs.ModeSymlink != 0:
		default:
			files[name+":"+rel] = info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestBaseBackup(t *testing.T) {
	for _, c := range []struct {
		name       string
		tcp, space bool
		opts       dbcore.BaseBackupOptions
	}{
		{name: "plain", opts: dbcore.BaseBackupOptions{FastCheckpoint: true}},
		{name: "all options", opts: dbcore.BaseBackupOptions{Label: `it's a \ label`, FastCheckpoint: true, Progress: true, TablespaceMap: true, MaxRateKB: 1048576,
			Manifest: true, ManifestChecksums: "SHA256", VerifyChecksums: true}},
		{name: "tablespace", space: true, opts: dbcore.BaseBackupOptions{FastCheckpoint: true, Progress: true, Manifest: true}},
		{name: "tablespace with map over TLS", tcp: true, space: true, opts: dbcore.BaseBackupOptions{FastCheckpoint: true, TablespaceMap: true, Manifest: true, ManifestChecksums: "CRC32C"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := openDB(t, socketConfig())
			mustExec(t, db, "drop table if exists filled; create table filled as select g, repeat('x', 200) from generate_series(1, 20000) g")
			spacePath, oid := "", uint32(0)
			if c.space {
				spacePath, oid = makeTablespace(t, db)
			}
			mustExec(t, db, "checkpoint")
			cfg := socketConfig()
			if c.tcp {
				cfg = tcpConfig()
			}
			rc := connectReplication(t, cfg)
			before, err := rc.IdentifySystem(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			dir := restoreDir(t)
			b, err := take(t, rc, c.opts, dir)
			if err != nil {
				t.Fatal(err)
			}
			after, err := rc.IdentifySystem(t.Context()) // the connection is free again
			if err != nil {
				t.Fatal(err)
			}
			if b.start < before.XLogPos || b.stop.LSN <= b.start || b.stop.LSN > after.XLogPos || b.timeline != 1 || b.stop.Timeline != 1 {
				t.Errorf("from %s/%d to %s/%d, the server was at %s before and %s after", b.start, b.timeline, b.stop.LSN, b.stop.Timeline, before.XLogPos, after.XLogPos)
			}
			if len(b.notices) != 0 {
				t.Errorf("notices: %v", b.notices)
			}
			checkArchives(t, b, c.opts, spacePath, oid)
			checkFiles(t, b, c.opts, spacePath, oid)
			if c.opts.Manifest {
				checkManifest(t, b)
				verifyBackup(t, b, dir, oid)
			}
			label, err := os.ReadFile(filepath.Join(dir, "base", "backup_label"))
			if want := c.opts.Label; err != nil || !strings.Contains(string(label), "LABEL: "+want) || !strings.Contains(string(label), "START WAL LOCATION: "+b.start.String()) {
				t.Errorf("backup_label %s, %v", label, err)
			}
			// A second one on the same connection.
			if b2, err := take(t, rc, dbcore.BaseBackupOptions{FastCheckpoint: true}, ""); err != nil || b2.start < b.stop.LSN {
				t.Errorf("second backup from %s, first to %s, %v", b2.start, b.stop.LSN, err)
			}
		})
	}
}

func makeTablespace(t *testing.T, db *dbcore.DB) (path string, oid uint32) {
	t.Helper()
	path = filepath.Join(srv.dir, "space with blank")
	if err := errors.Join(os.Mkdir(path, 0o700), srv.own(path)); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db, "create tablespace elsewhere location '"+path+"'")
	t.Cleanup(func() {
		mustExec(t, db, "drop table far")
		mustExec(t, db, "drop tablespace elsewhere")
		_ = os.RemoveAll(path)
	})
	mustExec(t, db, "create table far tablespace elsewhere as select g from generate_series(1, 50000) g")
	return path, one[uint32](t, db, "select oid from pg_tablespace where spcname = 'elsewhere'")
}

// restoreDir is a short path that PostgreSQL's user may enter.
func restoreDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "dbcr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func checkArchives(t *testing.T, b backup, opts dbcore.BaseBackupOptions, spacePath string, oid uint32) {
	t.Helper()
	var want []dbcore.Archive
	spaces := map[uint32]string{0: ""}
	if spacePath != "" {
		want = append(want, dbcore.Archive{Name: fmt.Sprintf("%d.tar", oid), TablespacePath: spacePath})
		spaces[oid] = spacePath
	}
	want = append(want, dbcore.Archive{Name: "base.tar"}) // the last
	if opts.Manifest {
		want = append(want, dbcore.Archive{Name: "backup_manifest", Manifest: true})
	}
	if !slices.Equal(b.archives, want) {
		t.Errorf("archives %+v, want %+v", b.archives, want)
	}
	var sum int64
	for _, s := range b.spaces {
		location, ok := spaces[s.OID]
		if !ok || location != s.Location || (s.SizeKB > 0) != opts.Progress || !opts.Progress && s.SizeKB != -1 {
			t.Errorf("tablespace %+v", s)
		}
		sum += s.SizeKB << 10
	}
	if len(b.spaces) != len(spaces) {
		t.Errorf("tablespaces %+v", b.spaces)
	}
	var tarBytes int64
	for _, size := range b.files {
		tarBytes += (size + 511) &^ 511
	}
	if opts.Progress && (b.progress < tarBytes || b.progress > tarBytes*12/10+1<<20 || sum < tarBytes*9/10) {
		t.Errorf("progress ended at %d, the sizes told are %d, the files have %d", b.progress, sum, tarBytes)
	}
}

// checkFiles compares the list of files, and each size, with the data directory of the idle server.
func checkFiles(t *testing.T, b backup, opts dbcore.BaseBackupOptions, spacePath string, oid uint32) {
	t.Helper()
	want := onDisk(t, "base.tar", srv.data)
	if spacePath != "" {
		maps.Copy(want, onDisk(t, fmt.Sprintf("%d.tar", oid), spacePath))
		link := fmt.Sprintf("pg_tblspc/%d", oid)
		if got := b.links[link]; (got == spacePath) == opts.TablespaceMap {
			t.Errorf("link %s to %q, with TablespaceMap %t; links are %v", link, got, opts.TablespaceMap, b.links)
		}
	}
	added := []string{"base.tar:backup_label"}
	if _, ok := b.files["base.tar:tablespace_map"]; ok != opts.TablespaceMap {
		t.Errorf("tablespace_map there: %t", ok)
	} else if ok {
		added = append(added, "base.tar:tablespace_map")
	}
	if len(want) < 900 {
		t.Errorf("only %d files on disk?", len(want))
	}
	for name, size := range want {
		if got, ok := b.files[name]; !ok || got != size {
			t.Errorf("%s: %d bytes (there: %t), on disk %d", name, got, ok, size)
		}
	}
	for name := range b.files {
		if _, ok := want[name]; !ok && !slices.Contains(added, name) {
			t.Errorf("%s is not on disk", name)
		}
	}
	t.Logf("%d files and directories equal", len(want))
}

func checkManifest(t *testing.T, b backup) {
	t.Helper()
	var m struct {
		Files []struct {
			Path string
			Size int64
		}
		Ranges []struct {
			Start dbcore.LSN `json:"Start-LSN"`
			End   dbcore.LSN `json:"End-LSN"`
		} `json:"WAL-Ranges"`
	}
	if err := json.Unmarshal(b.manifest, &m); err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Files {
		name := "base.tar:" + f.Path
		if rest, ok := strings.CutPrefix(f.Path, "pg_tblspc/"); ok {
			oid, path, _ := strings.Cut(rest, "/")
			name = oid + ".tar:" + path
		}
		if got, ok := b.files[name]; !ok || got != f.Size {
			t.Errorf("%s: manifest says %d bytes, we have %d (%t)", f.Path, f.Size, got, ok)
		}
	}
	if len(m.Ranges) != 1 || m.Ranges[0].Start != b.start || m.Ranges[0].End != b.stop.LSN {
		t.Errorf("manifest has WAL %+v, the stream said %s to %s", m.Ranges, b.start, b.stop.LSN)
	}
}

// verifyBackup lets PostgreSQL's own tool hash every file.
func verifyBackup(t *testing.T, b backup, dir string, oid uint32) {
	t.Helper()
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(filepath.Join(base, "backup_manifest"), b.manifest, 0o600); err != nil {
		t.Fatal(err)
	}
	if oid != 0 {
		if err := os.Symlink(filepath.Join(dir, fmt.Sprint(oid)), filepath.Join(base, "pg_tblspc", fmt.Sprint(oid))); err != nil {
			t.Fatal(err)
		}
	}
	cmd := srv.command("pg_verifybackup", "-n", base)
	cmd.SysProcAttr = nil // the files are ours
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "successfully verified") {
		t.Errorf("pg_verifybackup: %v %s", err, out)
	}
}

// TestBaseBackupSkip: archives need not be read, or not to their end.
func TestBaseBackupSkip(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	s, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true, Manifest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("before Next: %d, %v", n, err)
	}
	if _, err := rc.Show(t.Context(), "port"); err == nil {
		t.Error("a command ran beside the backup")
	}
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s, 100_000); err != nil {
		t.Fatal(err)
	}
	archive, err := s.Next(t.Context())
	if err != nil || !archive.Manifest {
		t.Fatalf("got %+v, %v", archive, err)
	}
	head := make([]byte, 20)
	if _, err := io.ReadFull(s, head); err != nil || !strings.HasPrefix(string(head), "{ \"PostgreSQL") {
		t.Errorf("manifest begins %q, %v", head, err)
	}
	for range 2 {
		if _, err := s.Next(t.Context()); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
	if n, err := s.Read(head); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}
	if _, err := s.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Finish(t.Context()); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("second Finish: %v", err)
	}
	if err := s.Close(); err != nil || rc.Closed() {
		t.Errorf("Close after Finish: %v, closed %t", err, rc.Closed())
	}
}

func TestBaseBackupRefused(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	for name, opts := range map[string]dbcore.BaseBackupOptions{
		"rate": {MaxRateKB: 5}, "label": {Label: "a\x00b"}, "algorithm without manifest": {ManifestChecksums: "SHA256"},
	} {
		if _, err := rc.BaseBackup(t.Context(), opts); err == nil || rc.Closed() {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := rc.BaseBackup(canceled(t), dbcore.BaseBackupOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{Manifest: true, ManifestChecksums: "MD5"})
	if dbcore.SQLState(err) != "42601" || !rc.Closed() {
		t.Errorf("unknown algorithm: got %v (%s), closed %t", err, dbcore.SQLState(err), rc.Closed())
	}
	if _, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{}); !errors.Is(err, dbcore.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// slow starts a backup that takes minutes, and reads its beginning.
func slow(t *testing.T, ctx context.Context, cfg dbcore.Config, idle time.Duration) (*dbcore.ReplicationConn, *dbcore.BaseBackupStream) {
	t.Helper()
	rc := connectReplication(t, cfg)
	s, err := rc.BaseBackup(ctx, dbcore.BaseBackupOptions{FastCheckpoint: true, MaxRateKB: 256, IdleTimeout: idle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if _, err := s.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, s, 50_000); err != nil {
		t.Fatal(err)
	}
	return rc, s
}

// gone waits until the server has no such walsender any more.
func gone(t *testing.T, db *dbcore.DB, pid uint32) {
	t.Helper()
	eventually(t, "the walsender has ended", func() bool {
		return one[int](t, db, "select count(*) from pg_stat_activity where pid = $1", pid) == 0
	})
}

// TestBaseBackupEnds: whatever ends a stream early ends it soon, says so, closes the connection, and leaves nothing
// behind on the server.
func TestBaseBackupEnds(t *testing.T) {
	db := openDB(t, socketConfig())
	cause := errors.New("my cause")
	for _, c := range []struct {
		name  string
		tcp   bool
		end   func(t *testing.T, cancel context.CancelCauseFunc, s *dbcore.BaseBackupStream, pid uint32)
		is    error
		state string
	}{
		{name: "context", end: func(_ *testing.T, cancel context.CancelCauseFunc, _ *dbcore.BaseBackupStream, _ uint32) { cancel(nil) }, is: context.Canceled},
		{name: "context over TLS", tcp: true, end: func(_ *testing.T, cancel context.CancelCauseFunc, _ *dbcore.BaseBackupStream, _ uint32) {
			cancel(cause)
		}, is: cause},
		{name: "Close", end: func(t *testing.T, _ context.CancelCauseFunc, s *dbcore.BaseBackupStream, _ uint32) {
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		}, is: dbcore.ErrClosed},
		{name: "canceled by the server", end: func(t *testing.T, _ context.CancelCauseFunc, _ *dbcore.BaseBackupStream, pid uint32) {
			mustExec(t, db, "select pg_cancel_backend($1)", pid)
		}, state: "57014"},
		{name: "terminated by the server", tcp: true, end: func(t *testing.T, _ context.CancelCauseFunc, _ *dbcore.BaseBackupStream, pid uint32) {
			mustExec(t, db, "select pg_terminate_backend($1)", pid)
		}, state: "57P01"},
		{name: "early Finish", end: func(t *testing.T, _ context.CancelCauseFunc, s *dbcore.BaseBackupStream, _ uint32) {
			if _, err := s.Finish(t.Context()); err == nil {
				t.Error("finished with most of it unread")
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			cfg := socketConfig()
			if c.tcp {
				cfg = tcpConfig()
			}
			rc, s := slow(t, ctx, cfg, 0)
			pid := rc.PID()
			end := time.AfterFunc(100*time.Millisecond, func() { c.end(t, cancel, s, pid) })
			if strings.Contains(c.name, "Close") || strings.Contains(c.name, "Finish") {
				end.Stop() // these belong to the reader
				c.end(t, cancel, s, pid)
			}
			began := time.Now()
			_, err := io.Copy(io.Discard, s)
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("took %s", d)
			}
			if err == nil || c.is != nil && !errors.Is(err, c.is) || dbcore.SQLState(err) != c.state {
				t.Errorf("got %v, want %v %s", err, c.is, c.state)
			}
			if _, again := s.Next(t.Context()); again == nil || again.Error() != err.Error() {
				t.Errorf("then: %v, before: %v", again, err)
			}
			if !rc.Closed() {
				t.Error("the connection is not closed")
			}
			s.Close()
			gone(t, db, pid)
		})
	}
}

// TestBaseBackupNextContext: the context of a call counts while that call's archive is read, and no longer.
func TestBaseBackupNextContext(t *testing.T) {
	rc := connectReplication(t, socketConfig())
	s, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true, Manifest: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first, cancelFirst := context.WithCancel(t.Context())
	defer cancelFirst()
	if _, err := s.Next(first); err != nil {
		t.Fatal(err)
	}
	second, cancelSecond := context.WithCancel(t.Context())
	defer cancelSecond()
	if _, err := s.Next(second); err != nil {
		t.Fatal(err)
	}
	cancelFirst()
	time.Sleep(20 * time.Millisecond)
	if _, err := io.Copy(io.Discard, s); err != nil {
		t.Errorf("a context that is over ended the next archive: %v", err)
	}
	cancelSecond()
	time.Sleep(20 * time.Millisecond)
	if _, err := s.Next(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestBaseBackupStalled stops the walsender as a frozen machine would: the kernel still answers for it.
func TestBaseBackupStalled(t *testing.T) {
	rc, s := slow(t, t.Context(), socketConfig(), 300*time.Millisecond)
	pid := int(rc.PID())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	began := time.Now()
	_, err := io.Copy(io.Discard, s)
	if d := time.Since(began); !errors.Is(err, dbcore.ErrStalled) || d > 3*time.Second || !rc.Closed() {
		t.Errorf("got %v after %s, closed %t", err, d, rc.Closed())
	}
}

// TestBaseBackupCheckpoint: while the server waits for its spread checkpoint it sends nothing, and does not look at
// the connection either. It must be told to stop.
func TestBaseBackupCheckpoint(t *testing.T) {
	db := openDB(t, socketConfig())
	defer mustExec(t, db, "checkpoint") // ends the spread one
	for name, stalled := range map[string]bool{"canceled": false, "start timeout": true} {
		mustExec(t, db, "drop table if exists dirty; create table dirty as select g, repeat('x', 500) from generate_series(1, 20000) g")
		rc := connectReplication(t, socketConfig())
		pid := rc.PID()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		opts, want := dbcore.BaseBackupOptions{IdleTimeout: time.Millisecond}, context.DeadlineExceeded
		if stalled {
			ctx, opts.StartTimeout, want = t.Context(), 300*time.Millisecond, dbcore.ErrStalled
		}
		began := time.Now()
		_, err := rc.BaseBackup(ctx, opts)
		cancel()
		if d := time.Since(began); !errors.Is(err, want) || d < 250*time.Millisecond || d > 3*time.Second || !rc.Closed() {
			t.Errorf("%s: got %v after %s, closed %t", name, err, d, rc.Closed())
		}
		gone(t, db, pid)
		mustExec(t, db, "checkpoint")
	}
}

// TestBaseBackupChecksums damages a page. The server tells the file in a warning, and fails at the very end.
func TestBaseBackupChecksums(t *testing.T) {
	db := openDB(t, socketConfig())
	mustExec(t, db, "drop table if exists damaged; create table damaged as select g, repeat('x', 500) from generate_series(1, 2000) g")
	defer mustExec(t, db, "drop table damaged")
	mustExec(t, db, "checkpoint")
	rel := one[string](t, db, "select pg_relation_filepath('damaged')")
	f, err := os.OpenFile(filepath.Join(srv.data, rel), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 3*8192+4000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	rc := connectReplication(t, socketConfig())
	b, err := take(t, rc, dbcore.BaseBackupOptions{FastCheckpoint: true, VerifyChecksums: true}, "")
	if dbcore.SQLState(err) != "XX001" || b.stop.LSN <= b.start {
		t.Errorf("got %v, stop %s", err, b.stop.LSN)
	}
	if len(b.notices) == 0 || b.notices[0].Severity != "WARNING" || !strings.Contains(b.notices[0].Message, rel) {
		t.Errorf("notices %+v do not name %s", b.notices, rel)
	}
	rc = connectReplication(t, socketConfig())
	if _, err := take(t, rc, dbcore.BaseBackupOptions{FastCheckpoint: true}, ""); err != nil {
		t.Errorf("without verification: %v", err)
	}
}

// BenchmarkBaseBackup reads about 300 MB.
func BenchmarkBaseBackup(b *testing.B) {
	db := openDB(b, socketConfig())
	mustExec(b, db, `drop table if exists big;
		create unlogged table big_source as select string_agg(md5(g::text), '') s from generate_series(1, 60) g;
		create table big as select g, (select s from big_source) || g s from generate_series(1, 135000) g;
		drop table big_source`)
	defer mustExec(b, db, "drop table big")
	mustExec(b, db, "checkpoint")
	for name, read := range map[string]func(io.Reader) (int64, error){
		"discard": func(r io.Reader) (int64, error) {
			return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		},
		"tar": func(r io.Reader) (int64, error) {
			var sum int64
			buf := make([]byte, 256<<10)
			tr := tar.NewReader(r)
			for {
				h, err := tr.Next()
				if err == io.EOF {
					_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
					return sum, err
				}
				if err != nil {
					return sum, err
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{tr}, buf)
				if err != nil || n != h.Size {
					return sum, errors.Join(err, io.ErrUnexpectedEOF)
				}
				sum += n
			}
		},
	} {
		plain := tcpConfig()
		plain.SSLMode = "disable"
		for where, cfg := range map[string]dbcore.Config{"socket": socketConfig(), "TCP": plain, "TLS": tcpConfig()} {
			b.Run(name+"/"+where, func(b *testing.B) {
				rc := connectReplication(b, cfg)
				began := cpuTime()
				defer func() { b.ReportMetric(float64(cpuTime()-began)/1e6/float64(b.N), "cpu-ms/op") }()
				for b.Loop() {
					n, err := readBackup(b, rc, read)
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(n)
				}
			})
		}
	}
}

// cpuTime is what this process has used; on a busy machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func readBackup(b *testing.B, rc *dbcore.ReplicationConn, read func(io.Reader) (int64, error)) (int64, error) {
	s, err := rc.BaseBackup(b.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var sum int64
	for {
		_, err := s.Next(b.Context())
		if err == io.EOF {
			_, err := s.Finish(b.Context())
			return sum, err
		}
		if err != nil {
			return sum, err
		}
		n, err := read(s)
		sum += n
		if err != nil {
			return sum, err
		}
	}
}
