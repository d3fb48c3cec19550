package pginstance

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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

// SocketDirMarker is a file in each private socket directory that names the data directory: whoever finds the one after
// a crash knows whose it was.
const SocketDirMarker = "lifeboat.data-directory"

// privateSocketDir makes the private socket directory of a data directory, mode 0700, owned by the owner, or takes the
// one that an earlier start left.
func privateSocketDir(dataDir string, owner Owner) (string, error) {
	path := privateSocketName(dataDir)
	err := os.Mkdir(path, 0o700)
	if err != nil && isPrivateDir(path, owner.UID) {
		return path, markSocketDir(path, dataDir, owner)
	}
	if err != nil {
		// The name can be guessed, and /tmp is everyone's: if somebody else has it, take another.
		if path, err = os.MkdirTemp(filepath.Dir(socketDirPrefix), filepath.Base(socketDirPrefix)); err != nil {
			return "", fmt.Errorf("make a socket directory: %w", err)
		}
	}
	if err := markSocketDir(path, dataDir, owner); err != nil {
		return "", err
	}
	return path, owner.Chown(path)
}

func markSocketDir(path, dataDir string, owner Owner) error {
	name := filepath.Join(path, SocketDirMarker)
	_ = os.Remove(name) // of an earlier start
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(dataDir + "\n")
		err = errors.Join(err, f.Close(), owner.Chown(name))
	}
	if err != nil {
		return fmt.Errorf("mark the socket directory: %w", err)
	}
	return nil
}

// ReapSocketDirs removes the private socket directories, of this user or for root of any, whose data directory is gone
// and in which no server works any more: what a killed process left that nobody cleaned up after. Directories without
// our marker are never touched.
func ReapSocketDirs() (removed []string, err error) {
	found, err := filepath.Glob(socketDirPrefix + "*")
	if err != nil {
		return nil, err
	}
	uid := os.Geteuid()
	if uid == 0 {
		uid = -1
	}
	var failed error
	for _, path := range found {
		dataDir, ok := abandoned(path, uid)
		if !ok {
			continue
		}
		running, err := Running(dataDir)
		if err == nil && len(running) == 0 {
			if err = removeSocketDir(path); err == nil {
				removed = append(removed, path)
			}
		}
		failed = errors.Join(failed, err)
	}
	return removed, failed
}

// abandoned reads a socket directory's marker, and tells whether the data directory that it names is gone.
func abandoned(path string, uid int) (dataDir string, ok bool) {
	name := filepath.Join(path, SocketDirMarker)
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || !isPrivateDir(path, uid) {
		return "", false
	}
	data, err := os.ReadFile(name)
	dataDir = strings.TrimSuffix(string(data), "\n")
	if err != nil || !filepath.IsAbs(dataDir) {
		return "", false
	}
	_, err = os.Lstat(dataDir)
	return dataDir, errors.Is(err, fs.ErrNotExist)
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
