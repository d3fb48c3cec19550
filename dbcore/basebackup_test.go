package dbcore_test

import (
	"archive/tar"
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
	"testing"

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
		if errors.Is(err, io.EOF) {
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
		if errors.Is(err, io.EOF) {
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
		{name: "all options", opts: dbcore.BaseBackupOptions{
			Label: `it's a \ label`, FastCheckpoint: true, Progress: true, TablespaceMap: true, MaxRateKB: 1048576,
			Manifest: true, ManifestChecksums: "SHA256", VerifyChecksums: true,
		}},
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
