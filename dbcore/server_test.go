package dbcore_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/dbcore"
)

// server is the PostgreSQL server of this package's tests. It is started once, by TestMain, because a child that dies
// with its parent (Pdeathsig) dies with the thread that made it: the main thread lives as long as the process.
type server struct {
	bin, dir, data, socket string
	port                   int
	cmd                    *exec.Cmd
	cred                   *syscall.Credential // nil if we are not root
}

// srv is set by TestMain.
var srv *server

func TestMain(m *testing.M) {
	runtime.LockOSThread()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "PG") {
			if err := os.Unsetenv(name); err != nil {
				fmt.Fprintln(os.Stderr, "these tests must not see the environment's settings:", err)
				os.Exit(1)
			}
		}
	}
	if err := startServer(); err != nil {
		fmt.Fprintln(os.Stderr, "these tests need a PostgreSQL server:", err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		srv.stop()
		os.Exit(code)
	}))
}

// findBin prefers PostgreSQL 15, the oldest supported version.
func findBin() (string, error) {
	if dir := os.Getenv("DBCORE_TEST_BINDIR"); dir != "" {
		return dir, nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	for _, f := range found {
		if strings.Contains(f, "/15/") {
			return filepath.Dir(f), nil
		}
	}
	if len(found) == 0 {
		return "", errors.New("no /usr/lib/postgresql/*/bin/initdb; install postgresql-15 or set DBCORE_TEST_BINDIR")
	}
	return filepath.Dir(found[len(found)-1]), nil
}

const serverConf = `
listen_addresses = '127.0.0.1'
port = %d
unix_socket_directories = '%s'
ssl = on
ssl_cert_file = '%s/server.crt'
ssl_key_file = '%s/server.key'
fsync = off
autovacuum = off
shared_buffers = 64MB
max_connections = 60
max_wal_senders = 10
max_wal_size = 4GB
checkpoint_timeout = 1h
password_encryption = 'scram-sha-256'
lc_messages = 'C'
`

const serverHBA = `
local   all          postgres                    trust
local   replication  all                         trust
host    all          pw_user    127.0.0.1/32     scram-sha-256
host    all          no_role    127.0.0.1/32     trust
hostssl all          postgres   127.0.0.1/32     trust
host    replication  postgres   127.0.0.1/32     trust
host    replication  no_repl    127.0.0.1/32     trust
`

func startServer() error {
	bin, err := findBin()
	if err != nil {
		return err
	}
	srv = &server{bin: bin}
	if srv.dir, err = os.MkdirTemp("/tmp", "dbc"); err != nil {
		return err
	}
	if err := srv.init(); err != nil {
		srv.stop()
		return err
	}
	return nil
}

func (s *server) init() error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := s.own(s.dir); err != nil {
		return err
	}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	s.data, s.socket = filepath.Join(s.dir, "data"), s.dir
	initdb := s.command("initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8", "--no-sync", "--data-checksums")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	if err := s.writeCertificate(); err != nil {
		return err
	}
	conf := fmt.Sprintf(serverConf, s.port, s.socket, s.dir, s.dir)
	if err := os.WriteFile(filepath.Join(s.data, "postgresql.auto.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	if err := s.own(filepath.Join(s.data, "postgresql.auto.conf")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.data, "pg_hba.conf"), []byte(serverHBA), 0o644); err != nil {
		return err
	}
	return s.start()
}

func (s *server) start() error {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command("postgres", "-D", s.data)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		conn, err := dbcore.Connect(context.Background(), socketConfig())
		if err == nil {
			return errors.Join(setUp(conn), conn.Close())
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("server does not start: %w\n%s", err, text)
		}
	}
}

func setUp(conn *dbcore.Conn) error {
	for _, sql := range []string{
		"create role pw_user login password 'right-Pa55word'",
		"create role no_repl login",
		"create database closed",
		"revoke connect on database closed from public",
	} {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGINT)
		_ = s.cmd.Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// command prepares one of PostgreSQL's programs, to run as a user that it accepts.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	return cmd
}

func (s *server) own(path string) error {
	if s.cred == nil {
		return nil
	}
	return os.Chown(path, int(s.cred.Uid), int(s.cred.Gid))
}

func (s *server) writeCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db.test"}, DNSNames: []string{"db.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyBytes, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"server.crt": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "EC PRIVATE KEY", Bytes: keyBytes},
	} {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := s.own(path); err != nil {
			return err
		}
	}
	return nil
}

// socketConfig reaches the server as superuser over its unix socket.
func socketConfig() dbcore.Config {
	cfg := dbcore.DefaultConfig()
	cfg.Host, cfg.Port, cfg.User, cfg.DBName = srv.socket, srv.port, "postgres", "postgres"
	return cfg
}

// tcpConfig reaches it over TCP, which by default means TLS.
func tcpConfig() dbcore.Config {
	cfg := socketConfig()
	cfg.Host = "127.0.0.1"
	return cfg
}

func openDB(t testing.TB, cfg dbcore.Config, opts ...dbcore.Option) *dbcore.DB {
	t.Helper()
	db, err := dbcore.Open(context.Background(), cfg, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func connect(t testing.TB, cfg dbcore.Config) *dbcore.Conn {
	t.Helper()
	conn, err := dbcore.Connect(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func mustExec(t testing.TB, q dbcore.Querier, sql string, args ...any) int64 {
	t.Helper()
	n, err := q.Exec(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func one[T any](t testing.TB, q dbcore.Querier, sql string, args ...any) T {
	t.Helper()
	v, err := dbcore.One[T](context.Background(), q, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// holds looks for a while whether ok goes on to hold: for what must not happen there is no signal to wait for.
func holds(t testing.TB, what string, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); <-time.After(2 * time.Millisecond) {
		if !ok() {
			t.Fatalf("no longer true: %s", what)
		}
	}
}
