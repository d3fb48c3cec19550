package pginstance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// socketDirPrefix begins the names of private socket directories. They lie in /tmp whatever TMPDIR says, because the
// address of a socket is short (107 bytes).
const socketDirPrefix = "/tmp/lifeboat-"

// privateSocketName derives the name from the data directory, so that whoever cleans up after a dead process knows it.
func privateSocketName(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return socketDirPrefix + hex.EncodeToString(sum[:6])
}

// privateSocketDir makes the private socket directory of a data directory, mode 0700, owned by the owner, or takes the
// one that an earlier start left.
func privateSocketDir(dataDir string, owner Owner) (string, error) {
	path := privateSocketName(dataDir)
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return path, owner.Chown(path)
	}
	if isPrivateDir(path, owner.UID) {
		return path, nil
	}
	// The name can be guessed, and /tmp is everyone's: if somebody else has it, take another.
	if path, err = os.MkdirTemp(filepath.Dir(socketDirPrefix), filepath.Base(socketDirPrefix)); err != nil {
		return "", fmt.Errorf("make a socket directory: %w", err)
	}
	return path, owner.Chown(path)
}

// isPrivateDir tells whether path is a directory for one user's eyes only, that of uid; -1 stands for any.
func isPrivateDir(path string, uid int) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir() && info.Mode().Perm() == 0o700 && (uid == -1 || uidOf(info) == uid)
}

// uidOf returns the owner of a file; -1 if the system does not say.
func uidOf(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// removeSocketDir removes a private socket directory, and leaves every other alone.
func removeSocketDir(path string) error {
	if !strings.HasPrefix(path, socketDirPrefix) || strings.Contains(path[len(socketDirPrefix):], "/") {
		return nil
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove the socket directory: %w", err)
	}
	return nil
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on at this moment. Somebody may before the caller does:
// Start, which uses it, tries again.
func FreePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// ConnString returns the libpq connection string for the server's Unix socket; "" means the database "postgres" and
// the user that watches the server.
func (in *Instance) ConnString(db, user string) string {
	return fmt.Sprintf("host=%s port=%d dbname=%s user=%s", quoteConn(in.socketDir), in.port,
		quoteConn(orDefault(db, "postgres")), quoteConn(orDefault(user, in.superuser)))
}

// quoteConn quotes a value of a connection string (PostgreSQL documentation, 34.1.1.1, keyword/value strings).
func quoteConn(v string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}
