// Package fs is a blob.Store in a folder of a POSIX file system. The key is the path below the folder.
//
// # How a write becomes an object
//
//  1. The body goes to a new file with a random name in ROOT/.tmp. No key begins with a dot, so nobody can see it.
//  2. The file's size is checked; it is fsynced and closed. From here on its bytes are complete and durable.
//  3. The folders of the key are made, from the top down, each fsynced into its parent before anything is put in it.
//     So a folder that holds something is itself durable, whoever made it, and a writer that finds a folder needs to
//     fsync only that folder's parent.
//  4. One system call gives the file its name: rename(2) for Put; for PutIfAbsent renameat2(2) with RENAME_NOREPLACE,
//     or link(2) where the file system does not know that flag. Both are atomic against all other writers, those of
//     other processes included; where neither works PutIfAbsent fails, because nothing else would be proof.
//  5. The key's folder is fsynced: the name is durable, and the call returns.
//
// A process may be killed anywhere in it. Before step 4 it leaves a file in .tmp, for RemoveStale; after it, a complete
// object. Between 4 and 5 the object can be seen but is not yet proof against loss of power. Therefore PutIfAbsent
// does step 5 on the winner's behalf before it returns ErrExists: whoever asks again after a lost reply (R14) and is
// told "exists" may rely on the object as if its own call had succeeded. Delete does the same for what it finds
// deleted. A caller in doubt must for that reason repeat the write, not merely Stat the key.
//
// # What is not done
//
// Folders are never removed, not even empty ones: a writer may be between steps 3 and 4, and a key layout has few of
// them. A key that was once a folder can therefore not become an object. If a person removes empty folders, writers
// make them again.
//
// A failed fsync is never repeated on the same file: Linux reports a lost page once and then calls it clean. The file
// is thrown away and the write fails.
//
// # Which file systems
//
// All promises of package blob hold on local Linux file systems (ext4, XFS, Btrfs, ZFS; on tmpfs as far as power goes),
// with one reservation: readdir(3) may pass over a name that is replaced while it runs, as tmpfs and Btrfs do. List
// reads a folder again that changed meanwhile, a few times; a key that Put replaces incessantly can still be missed.
// Keys that only PutIfAbsent writes are never affected, and what deletion depends on should be such keys (R12).
//
// On NFS they hold between processes of one client; between clients a missing name may be cached, unless it is
// mounted with lookupcache=positive (nfs(5)).
package fs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	"lifeboat/internal/blob"
)

const (
	// tempName is the folder of unfinished writes below the root. It also tells a repository from a bare mount point.
	tempName = ".tmp"
	// lostFound is made by mkfs at the top of ext file systems and readable only by root.
	lostFound = "lost+found"

	defaultFileMode fs.FileMode = 0o640
	defaultDirMode  fs.FileMode = 0o750
)

// Options says how Open opens a folder. The zero value opens one that was used before, for reading and writing.
type Options struct {
	// Create makes the folder and its parents where they are missing, and accepts an empty one. Without it an empty
	// folder is refused, since a file system that is not mounted looks like that.
	Create bool
	// ReadOnly refuses all writes with ErrReadOnly and needs no permission for any, as for a snapshot that is mounted read-only.
	ReadOnly bool
	// AllowReadOnly opens a store that was used before also where this process may not write, because of permissions
	// or of a read-only file system: then reading works, and every write fails as Open would without the option.
	AllowReadOnly bool
	// FileMode and DirMode are the permissions of new objects and folders, before the umask; 0 means 0640 and 0750.
	FileMode, DirMode fs.FileMode
}

// Store is an object store in a folder. Make it with Open; it is safe for concurrent use, also by many processes.
// It holds nothing open between calls.
type Store struct {
	root, temp string
	opts       Options
	opened     fs.FileInfo // the root as Open found it
	unwritable error       // why this process may not write; nil if it may
	folders    folderSet
	sys        system
}

var _ blob.Store = (*Store)(nil)

// Open opens the store in the folder root, an absolute path. It fails with an error that says what to do and wraps
// os.ErrNotExist, syscall.ENOTDIR, os.ErrPermission, syscall.EROFS or syscall.ENOSPC.
//
// A full file system fails Open only where a folder must be made: on an existing store reading and Delete, the way
// out of a full disk, go on working, and Put fails with ENOSPC.
func Open(root string, opts Options) (*Store, error) {
	s, err := open(root, opts, realSystem())
	if err != nil {
		return nil, fmt.Errorf("open repository folder %s: %w", root, explain(err))
	}
	return s, nil
}

func open(root string, opts Options, sys system) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, errors.New("the path must be absolute")
	}
	if opts.Create && opts.ReadOnly {
		return nil, errors.New("options Create and ReadOnly exclude each other")
	}
	if opts.FileMode == 0 {
		opts.FileMode = defaultFileMode
	}
	if opts.DirMode == 0 {
		opts.DirMode = defaultDirMode
	}
	root = filepath.Clean(root)
	s := &Store{root: root, temp: filepath.Join(root, tempName), opts: opts, sys: sys}
	if opts.Create {
		if err := s.makeRoot(root); err != nil {
			return nil, err
		}
	}
	if err := s.inspectRoot(); err != nil {
		return nil, err
	}
	s.ownedBy(s.opened)
	if opts.ReadOnly {
		return s, nil
	}
	err := s.prepareTemp()
	if opts.AllowReadOnly && !opts.Create && (errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)) {
		s.unwritable, err = err, nil
	}
	return s, err
}

// makeRoot makes the root and its missing parents, each fsynced into its parent before the next is made.
func (s *Store) makeRoot(dir string) error {
	err := s.sys.mkdir(dir, s.opts.DirMode)
	if errors.Is(err, fs.ErrNotExist) && filepath.Dir(dir) != dir {
		if err := s.makeRoot(filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.sys.mkdir(dir, s.opts.DirMode)
	}
	existed := errors.Is(err, fs.ErrExist)
	if err == nil {
		err = s.adopt(dir)
	}
	if err != nil && !existed {
		return fmt.Errorf("create: %w", err)
	}
	err = s.sys.syncDir(filepath.Dir(dir))
	if existed && errors.Is(err, fs.ErrPermission) {
		return nil // who may not read the parent did not make the folder in it
	}
	return err
}

// inspectRoot checks that the root is a folder that can hold a store, and remembers which one it is.
func (s *Store) inspectRoot() error {
	info, err := os.Stat(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return &RemedyError{err, "create it, or mount the file system that holds it"}
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &RemedyError{&fs.PathError{Op: "open", Path: s.root, Err: syscall.ENOTDIR}, "name a folder"}
	}
	s.opened = info
	empty, err := s.rootIsEmpty()
	if err != nil {
		return err
	}
	if empty && !s.opts.Create {
		return &RemedyError{ErrEmpty, "mount the file system that holds the repository, or create a new one"}
	}
	return nil
}

func (s *Store) rootIsEmpty() (bool, error) {
	dir, err := os.Open(s.root)
	if err != nil {
		return false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(2)
	for _, name := range names {
		if name != lostFound {
			return false, nil
		}
	}
	if len(names) == 0 && !errors.Is(err, io.EOF) {
		return false, err
	}
	return true, nil
}

// prepareTemp makes the folder of unfinished writes and proves that this process may write there.
func (s *Store) prepareTemp() error {
	err := s.sys.mkdir(s.temp, s.opts.DirMode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create folder for unfinished writes: %w", err)
	}
	f, path, err := s.createTemp()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return nil // see Open
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), s.sys.unlink(path))
}

// String is the store's URL, file:///path.
func (s *Store) String() string { return (&url.URL{Scheme: "file", Path: s.root}).String() }

// path is the file of a key that CheckKey accepts.
func (s *Store) path(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }

// present fails unless the root is still the folder that was opened. A mount point whose file system is gone looks
// like an empty repository, so it must be asked before "not found" or an empty list is believed: recovery would end
// early (R16), and a sweep would see packs without manifests (R12). A root with another device number but with a
// folder for unfinished writes is the same file system mounted anew.
func (s *Store) present() error {
	info, err := os.Stat(s.root)
	if err == nil && os.SameFile(info, s.opened) {
		return nil
	}
	if temp, err := os.Lstat(s.temp); err == nil && temp.IsDir() {
		return nil
	}
	if err == nil {
		err = errors.New("another folder is in its place")
	}
	return fmt.Errorf("repository folder %s is gone; is its file system still mounted? %w", s.root, err)
}
