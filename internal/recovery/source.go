package recovery

import (
	"io/fs"

	"lifeboat/internal/repo"
)

// considerSource takes into account what the backup knows of the source's configuration (R4).
func (p *Plan) considerSource(m *repo.Manifest) {
	c := m.Configuration
	if c == nil {
		return
	}
	for name, v := range c.Settings {
		p.Settings[name] = max(p.Settings[name], v)
	}
	for _, r := range c.References {
		if r.Setting == "shared_preload_libraries" {
			p.Warnings = append(p.Warnings, "the source loads "+r.Value+" at its start (shared_preload_libraries), and the restored server "+
				"does not: libraries of this kind run jobs (R2). If replay fails for a missing resource manager, add the one that "+
				"brings it to postgresql.conf in the target directory")
		}
	}
}

// groupAccess tells whether the source's data directory could be read by its group (initdb --allow-group-access).
func groupAccess(m *repo.Manifest) bool {
	return m.Configuration != nil && m.Configuration.DirectoryMode == "0750"
}

// dirMode and fileMode are those of what Lifeboat itself adds, and of the data directory.
func (l *layer) dirMode() fs.FileMode {
	if groupAccess(l.snap.Manifest) {
		return 0o750
	}
	return 0o700
}

func (l *layer) fileMode() fs.FileMode { return l.dirMode() & 0o640 }

// openToGroup gives the data directory its own mode, last of all: until then nobody else has business there.
func (l *layer) openToGroup() error {
	top, err := l.root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	if err := top.Chmod(l.dirMode()); err != nil {
		return err
	}
	return top.Sync()
}
