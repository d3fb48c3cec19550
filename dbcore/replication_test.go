package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

func connectReplication(t testing.TB, cfg dbcore.Config) *dbcore.ReplicationConn {
	t.Helper()
	conn, err := dbcore.ConnectReplication(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestReplicationCommands(t *testing.T) {
	for name, cfg := range map[string]dbcore.Config{"socket": socketConfig(), "TLS": tcpConfig()} {
		t.Run(name, func(t *testing.T) {
			cfg.StatementTimeout = time.Second // must not matter
			rc := connectReplication(t, cfg)
			db := openDB(t, socketConfig())
			id, err := rc.IdentifySystem(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := one[string](t, db, "select system_identifier::text from pg_control_system()")
			if fmt.Sprint(id.SystemID) != want || id.Timeline != 1 || id.DBName != "" {
				t.Errorf("got %+v, want system %s on timeline 1", id, want)
			}
			if now := one[dbcore.LSN](t, db, "select pg_current_wal_flush_lsn()"); id.XLogPos == 0 || id.XLogPos > now {
				t.Errorf("position %s, the server is at %s", id.XLogPos, now)
			}
			if v, err := rc.Show(t.Context(), "wal_segment_size"); err != nil || v != "16MB" {
				t.Errorf("SHOW gave %q, %v", v, err)
			}
			if v, err := rc.Show(t.Context(), "statement_timeout"); err != nil || v != "0" {
				t.Errorf("statement_timeout is %q, %v", v, err)
			}
			if _, err := rc.Show(t.Context(), "x; DROP"); err == nil || rc.Closed() {
				t.Errorf("got %v", err)
			}
			if _, err := rc.Show(t.Context(), "no_such"); dbcore.SQLState(err) != "42704" {
				t.Errorf("unknown setting: got %v", err)
			}
			if _, _, err := rc.TimelineHistory(t.Context(), 1); dbcore.SQLState(err) != "58P01" {
				t.Errorf("history of timeline 1: got %v", err)
			}
			if rc.Closed() || rc.PID() == 0 || !strings.HasPrefix(rc.Parameter("server_version"), "1") {
				t.Error("closed, or without PID or version")
			}
			if got := one[string](t, db, "select backend_type from pg_stat_activity where pid = $1", rc.PID()); got != "walsender" {
				t.Errorf("the server calls it a %s", got)
			}
			if err := errors.Join(rc.Close(), rc.Close()); err != nil || !rc.Closed() {
				t.Errorf("close: %v", err)
			}
			if _, err := rc.IdentifySystem(t.Context()); !errors.Is(err, dbcore.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// TestTimelineHistory promotes nothing: a history file in pg_wal is what the server sends.
func TestTimelineHistory(t *testing.T) {
	content := "1\t0/3000000\tno recovery target specified\\x\n\x01'\n"
	path := srv.data + "/pg_wal/00000007.history"
	cmd := srv.command("postgres", "--version") // only for its user
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "cat > " + path}
	cmd.Stdin = strings.NewReader(content)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	t.Cleanup(func() { _ = exec.Command("rm", path).Run() })
	rc := connectReplication(t, socketConfig())
	name, got, err := rc.TimelineHistory(t.Context(), 7)
	if err != nil || name != "00000007.history" || string(got) != content {
		t.Errorf("got %s %q, %v", name, got, err)
	}
}

func TestReplicationConnectErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		user string
		code dbcore.ConnectCode
		hint string
	}{
		{"no hba entry", "pw_user", dbcore.CodeNoHBAEntry, "database replication"},
		{"no privilege", "no_repl", dbcore.CodePermission, `ALTER ROLE "no_repl" REPLICATION`},
	} {
		cfg := tcpConfig()
		cfg.User = c.user
		_, err := dbcore.ConnectReplication(t.Context(), cfg)
		var e *dbcore.ConnectError
		if !errors.As(err, &e) || e.Code != c.code || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

// TestReplicationTarget: target_session_attrs works on a walsender too, though that runs no SQL.
func TestReplicationTarget(t *testing.T) {
	for attr, ok := range map[string]bool{
		"any": true, "primary": true, "read-write": true, "prefer-standby": true, "standby": false, "read-only": false,
	} {
		cfg := socketConfig()
		cfg.DSN = dbcore.NewSecret("target_session_attrs=" + attr)
		rc, err := dbcore.ConnectReplication(t.Context(), cfg)
		if (err == nil) != ok {
			t.Errorf("%s: got %v", attr, err)
		}
		var e *dbcore.ConnectError
		if err != nil && (!errors.As(err, &e) || e.Code != dbcore.CodeWrongServerRole) {
			t.Errorf("%s: got %v", attr, err)
		}
		if rc != nil {
			if _, err := rc.IdentifySystem(t.Context()); err != nil {
				t.Errorf("%s: %v", attr, err)
			}
			rc.Close()
		}
	}
}

// TestOldServer: a server before 15 is refused by its word at connect.
func TestOldServer(t *testing.T) {
	for version, ok := range map[string]bool{"14.9": false, "9.6.24": false, "15beta1": true, "18.1 (Debian)": true, "": false} {
		port := listenTest(t, func(c net.Conn) { fakeServer(c, version) })
		cfg := tcpConfig()
		cfg.Port, cfg.SSLMode = port, "disable"
		rc, err := dbcore.ConnectReplication(t.Context(), cfg)
		if (err == nil) != ok || err != nil && !errors.Is(err, dbcore.ErrUnsupportedServer) {
			t.Errorf("%q: got %v", version, err)
		}
		if rc != nil {
			rc.Close()
		}
	}
}

// fakeServer accepts a client and says its version.
func fakeServer(c net.Conn, version string) {
	buf := make([]byte, 1024)
	_, _ = c.Read(buf)
	status := "server_version\x00" + version + "\x00"
	_, _ = fmt.Fprintf(c, "R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00%c%sZ\x00\x00\x00\x05I", 4+len(status), status)
	_, _ = c.Read(buf)
	c.Close()
}

// TestReplicationCanceled: a context that ends while the server is silent.
func TestReplicationCanceled(t *testing.T) {
	p := newProxy(t, "IDENTIFY_SYSTEM")
	cfg := p.config()
	cfg.Host = "127.0.0.1"
	rc := connectReplication(t, cfg)
	p.set(holdReply)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := rc.IdentifySystem(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !rc.Closed() {
		t.Errorf("got %v, closed %t", err, rc.Closed())
	}
}
