package recovery_test

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// debian is a cluster as Debian's postgresql-common makes it: its configuration lies in /etc/postgresql.
type debian struct {
	place
	major, name string
	etc, data   string
}

// debianName are the clusters of this test, by the process that made them.
var debianName = regexp.MustCompile(`^lbtest(\d+)$`)

func pgCommon(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SYSTEMCTL_SKIP_REDIRECT=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// newDebian makes a cluster, and drops those that killed tests left. It skips where there is no postgresql-common.
func newDebian(t *testing.T, b *bench) *debian {
	t.Helper()
	if _, err := exec.LookPath("pg_createcluster"); err != nil {
		t.Skipf("a Debian cluster is not tested: %v; install postgresql-common", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("a Debian cluster is not tested: pg_createcluster needs root")
	}
	bin := pgtest.Binaries(t, 15)
	if bin.Dir != "/usr/lib/postgresql/15/bin" {
		t.Skipf("a Debian cluster is not tested: PostgreSQL 15 is in %s, not where Debian's package puts it", bin.Dir)
	}
	left, _ := os.ReadDir("/etc/postgresql/15")
	for _, e := range left {
		if m := debianName.FindStringSubmatch(e.Name()); m != nil {
			if pid, _ := strconv.Atoi(m[1]); syscall.Kill(pid, 0) != nil {
				dropDebian(t, e.Name())
			}
		}
	}
	d := &debian{major: "15", name: fmt.Sprintf("lbtest%d", os.Getpid())}
	d.etc, d.data = "/etc/postgresql/15/"+d.name, "/var/lib/postgresql/15/"+d.name
	d.place = place{dir: pgtest.TempDir(t), user: "postgres", port: freePort(t), bin: bin.Path("pg_dumpall")}
	pgCommon(t, "pg_createcluster", "15", d.name, "--port", fmt.Sprint(d.port), "--socketdir", d.dir, "--start-conf", "manual",
		"--locale", "C.UTF-8", "--", "--no-sync", "--data-checksums")
	t.Cleanup(func() { d.drop(t) })
	d.configure(t, b)
	pgCommon(t, "pg_ctlcluster", "--skip-systemctl-redirect", "15", d.name, "start")
	return d
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// drop removes the cluster with its configuration.
func (d *debian) drop(t *testing.T) {
	if _, err := os.Stat(d.etc); err == nil {
		dropDebian(t, d.name)
	}
}

// dropDebian drops a cluster of this test, and what pg_dropcluster leaves: files that it did not make.
func dropDebian(t *testing.T, name string) {
	t.Helper()
	if _, err := os.Stat("/etc/postgresql/15/" + name + "/postgresql.conf"); err == nil {
		pgCommon(t, "pg_dropcluster", "--stop", "15", name)
	}
	if err := os.RemoveAll("/etc/postgresql/15/" + name); err != nil {
		t.Fatal(err)
	}
}

// configure edits it as its owner would: conf.d, includes, an own pg_hba.conf with a list, ALTER SYSTEM.
func (d *debian) configure(t *testing.T, b *bench) {
	t.Helper()
	hba, err := os.ReadFile(d.etc + "/pg_hba.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(d.etc + "/postgresql.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"conf.d/10-archive.conf": fmt.Sprintf("archive_mode = on\narchive_command = '%s'\nfsync = off\n", b.archiveCommand(t, d.dir)),
		"conf.d/20-size.conf":    "max_connections = 140\nmax_prepared_transactions = 3\nmax_replication_slots = 25\n",
		"extra.inc":              "primary_conninfo = 'host=127.0.0.1 port=1 password=hunter2'\nrestore_command = 'touch /tmp/never-run-me; false'\n",
		"clerks":                 "alice\nbob\n",
		"postgresql.conf":        string(conf) + "\ninclude 'extra.inc'\ninclude_if_exists '/nowhere/at/all.conf'\n",
		"pg_hba.conf":            "local all,replication all trust\nhost all @clerks 127.0.0.1/32 reject\n" + string(hba),
	} {
		if err := os.WriteFile(filepath.Join(d.etc, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (d *debian) exec(t *testing.T, sql ...string) {
	t.Helper()
	conn := d.connect(t, "postgres")
	defer conn.Close()
	for _, s := range sql {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// etcFiles are the configuration files, by absolute path: what Debian's own tools read beside them is none of the
// server's.
func (d *debian) etcFiles(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(d.etc, func(path string, e iofs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		switch e.Name() {
		case "environment", "pg_ctl.conf", "start.conf":
			return nil
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRestore_DebianCluster: the configuration of a Debian cluster lies in /etc/postgresql. It is in the backup, laid for
// reference, and the restored server starts by one of its own, also when everything of the source is gone (R4, R2).
func TestRestore_DebianCluster(t *testing.T) {
	b := newRepository(t)
	d := newDebian(t, b)
	d.exec(t, "create table rows as select g, md5(g::text) from generate_series(1, 5000) g",
		"alter system set work_mem = '7MB'", "alter system set recovery_target_name = 'nowhere'", "select pg_reload_conf()",
		"create role alice login password 'x'")
	for i := range 12 { // more origins than a server has room for by default
		d.exec(t, fmt.Sprintf("select pg_replication_origin_create('o%d')", i), fmt.Sprintf("select pg_replication_origin_advance('o%d', '0/%d')", i, i+1))
	}
	cfg, err := dbcore.ParseDSN(fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", d.dir, d.port))
	if err != nil {
		t.Fatal(err)
	}
	m := b.backupOf(t, cfg)
	d.exec(t, "insert into rows select g, 'late' from generate_series(1, 10) g")
	want, etc := d.look(t), d.etcFiles(t)
	conn := d.connect(t, "postgres")
	end, err := dbcore.One[string](t.Context(), conn, "select pg_switch_wal()::text")
	if err = errors.Join(err, conn.Close()); err != nil {
		t.Fatal(err)
	}
	lsn, err := pg.ParseLSN(end)
	if err != nil {
		t.Fatal(err)
	}
	if err := recovery.WaitArchived(t.Context(), b.repo, "c1", lsn, time.Minute); err != nil {
		t.Fatal(err)
	}
	d.drop(t)
	for _, gone := range []string{d.etc, d.data} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s is still there: %v", gone, err)
		}
	}

	p := b.plan(t, recovery.PlanOptions{})
	if _, err := recovery.Lay(t.Context(), p, b.lay()); err != nil {
		t.Fatal(err)
	}
	b.Server = &pgtest.Server{Bin: pgtest.Binaries(t, 15)}
	verified(t, b, p)
	checkCopies(t, d, p, etc)
	s := b.start(t, p)
	in := s.Instance
	want.equal(t, place{dir: in.SocketDir(), port: in.Port(), user: "postgres", bin: d.bin}.look(t), 15)
	for _, setting := range []string{"config_file", "hba_file", "ident_file", "data_directory"} {
		if v := query(t, s, "show "+setting); !within(p.TargetDir, v) {
			t.Errorf("%s of the restored server is %s", setting, v)
		}
	}
	for setting, want := range map[string]string{
		"archive_mode": "off", "primary_conninfo": "", "work_mem": "4MB", "max_connections": "140", "max_prepared_transactions": "3",
		"max_replication_slots": "25", "recovery_target_name": "", "cluster_name": "", "ssl": "off",
	} {
		if v := query(t, s, "show "+setting); v != want {
			t.Errorf("%s of the restored server is %q, want %q", setting, v, want)
		}
	}
	if n := query(t, s, "select count(*)::text from pg_replication_origin_status"); n != "12" {
		t.Errorf("%s replication origins came back, want 12", n)
	}
	named := map[string]string{}
	for _, r := range m.Configuration.References {
		named[r.Setting] = r.Value
	}
	if strings.Contains(etc[d.etc+"/postgresql.conf"], "\nssl = on") && named["ssl_key_file"] == "" {
		t.Errorf("the key file is not named: %v", named)
	}
}

func within(dir, path string) bool { return strings.HasPrefix(path, dir+"/") || path == dir }

// checkCopies compares what was laid for reference with what had been in /etc, byte by byte.
func checkCopies(t *testing.T, d *debian, p *recovery.Plan, etc map[string]string) {
	t.Helper()
	root := p.TargetDir + "/lifeboat.source-config/files"
	found := 0
	err := filepath.WalkDir(root, func(path string, e iofs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		found++
		data, err := os.ReadFile(path)
		was, ok := etc[strings.TrimPrefix(path, root)]
		if !ok || was != string(data) {
			t.Errorf("%s is not as it was in %s: %.100q", path, d.etc, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(etc) || found < 7 {
		t.Errorf("%d configuration files were laid, %s held %d", found, d.etc, len(etc))
	}
	if data, err := os.ReadFile(p.TargetDir + "/lifeboat.source-config/settings.conf"); err != nil || strings.Contains(string(data), "hunter2") ||
		!strings.Contains(string(data), "max_connections = '140'") {
		t.Errorf("the settings are %s, %v", data, err)
	}
	if data, err := os.ReadFile(p.TargetDir + "/postgresql.auto.conf.lifeboat-source"); err != nil || !strings.Contains(string(data), "work_mem") {
		t.Errorf("postgresql.auto.conf of the source is not kept: %s, %v", data, err)
	}
	if _, err := os.Stat(p.TargetDir + "/" + repo.ConfigDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was laid: %v", repo.ConfigDir, err)
	}
}
