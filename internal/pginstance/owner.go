package pginstance

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// DefaultOwner is the operating-system user of servers that root starts and names no other for. It is the name that
// Debian's and Red Hat's packages create.
const DefaultOwner = "postgres"

// Owner is the operating-system user that a server runs as and that owns its files. PostgreSQL refuses to run as root.
type Owner struct {
	// Name is the user's name, for messages.
	Name string
	// UID and GID are the numeric ids.
	UID, GID int

	groups []uint32 // supplementary groups, such as ssl-cert on Debian
	change bool     // we are root and must change to this user
}

// LookupOwner returns the user that servers run as. When this process is not root it is always the present user, since
// nothing else is possible, and name is ignored. When it is root it is the user called name ("" means DefaultOwner).
func LookupOwner(name string) (Owner, error) {
	if uid := os.Geteuid(); uid != 0 {
		o := Owner{Name: strconv.Itoa(uid), UID: uid, GID: os.Getegid()}
		if u, err := user.LookupId(o.Name); err == nil {
			o.Name = u.Username
		}
		return o, nil
	}
	if name == "" {
		name = DefaultOwner
	}
	u, err := user.Lookup(name)
	if err != nil {
		return Owner{}, fmt.Errorf("look up the server's user %q: %w (PostgreSQL does not run as root; "+
			"install the postgresql package, which creates the user, or name another)", name, err)
	}
	o := Owner{Name: name, change: true}
	if o.UID, err = strconv.Atoi(u.Uid); err != nil {
		return Owner{}, fmt.Errorf("look up the server's user %q: uid: %w", name, err)
	}
	if o.GID, err = strconv.Atoi(u.Gid); err != nil {
		return Owner{}, fmt.Errorf("look up the server's user %q: gid: %w", name, err)
	}
	if o.UID == 0 {
		return Owner{}, fmt.Errorf("user %q is root: %w", name, errors.New("PostgreSQL does not run as root; name another user"))
	}
	ids, err := u.GroupIds()
	if err != nil {
		return Owner{}, fmt.Errorf("look up the groups of user %q: %w", name, err)
	}
	for _, id := range ids {
		gid, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return Owner{}, fmt.Errorf("look up the groups of user %q: %w", name, err)
		}
		o.groups = append(o.groups, uint32(gid))
	}
	return o, nil
}

// Chown gives one file or directory to the owner. It does nothing when this process is not root.
func (o Owner) Chown(path string) error {
	if !o.change {
		return nil
	}
	if err := os.Lchown(path, o.UID, o.GID); err != nil {
		return fmt.Errorf("give to user %s: %w", o.Name, err)
	}
	return nil
}

// SysProcAttr returns attributes that start a child as the owner, in a process group of its own, so that a ctrl-C typed
// at our terminal is ours to pass on. The caller may add to it.
func (o Owner) SysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if o.change {
		attr.Credential = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID), Groups: o.groups}
	}
	return attr
}
