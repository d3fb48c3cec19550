package repo

import (
	"context"
	"strings"
)

// Configuration is what a backup knows of the source's configuration (R4): files wherever they live, and by name only
// what belongs to the host. Its values are names; contents are in the file table.
type Configuration struct {
	// DirectoryMode of the data directory, in octal: "0700", or "0750" with group access; "" if it is not known.
	DirectoryMode string `json:"directoryMode,omitempty"`
	// Settings beside those of pg_control that a restored server needs at least as high, or its startup panics.
	Settings map[string]int32 `json:"settings,omitempty"`
	// Files are the configuration, hba and ident files with all that they include.
	Files []ConfigFile `json:"files,omitempty"`
	// References are settings that name what is not in a backup unless it lies in the data directory: TLS files,
	// libraries.
	References []ConfigReference `json:"references,omitempty"`
	// Unread is what could not be stored, and why.
	Unread []UnreadFile `json:"unread,omitempty"`
	// Grants are the commands that would let the backup's role read all; none if it was allowed to.
	Grants []string `json:"grants,omitempty"`
}

// ConfigFile is a configuration file of the source.
type ConfigFile struct {
	Path  string `json:"path"`  // on the source's host, absolute
	Entry string `json:"entry"` // its path in the file table
}

// ConfigReference is a setting and its value.
type ConfigReference struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`
}

// UnreadFile is a file, or a setting that would name one, and the reason.
type UnreadFile struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// ConfigDir is the directory of the file table that holds what a backup stores of the source's configuration beside
// what lies in the data directory. Nothing of the data directory stands there.
const ConfigDir = "lifeboat.config"

// Stored tells which of the paths stand in the file table already, and whether anything stands under dir. It waits for
// the files that were closed before.
func (w *Writer) Stored(paths []string, dir string) (stored map[string]bool, below bool, err error) {
	if err := w.waitFiles(); err != nil {
		return nil, false, err
	}
	if w.ctx.Err() != nil {
		return nil, false, context.Cause(w.ctx)
	}
	stored = make(map[string]bool, len(paths))
	for _, p := range paths {
		stored[p] = false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.entries {
		p := w.entries[i].Path
		if _, asked := stored[p]; asked {
			stored[p] = w.entries[i].Type == TypeFile
		}
		below = below || p == dir || strings.HasPrefix(p, dir+"/")
	}
	return stored, below, nil
}
