package contract

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Target is what a restore aims at.
type Target struct {
	// Kind is time, lsn, xid, name, immediate or latest; latest by default.
	Kind string `json:"kind"`
	// Value is an RFC 3339 time with a zone, an LSN, an xid or a restore point's name; empty for immediate and latest.
	Value string `json:"value,omitempty"`
	// Exclusive stops just before the target rather than just after it.
	Exclusive bool `json:"exclusive,omitempty"`
}

// RestoreInput starts workflow Restore.
type RestoreInput struct {
	Cluster   string `json:"cluster"`
	TargetDir string `json:"targetDir"`
	// Host runs the restore; required: the queue lifeboat@HOST must have a worker.
	Host string `json:"host"`
	// Backup restores from this one; by default the newest from which the target can be reached.
	Backup string `json:"backup,omitempty"`
	Target Target `json:"target,omitzero"`
	// Timeline is a number; 0 is the branch that the protected cluster is on.
	Timeline uint32 `json:"timeline,omitempty"`
	// Action is what the server does at the target: promote (default), pause or shutdown.
	Action string `json:"action,omitempty"`
	// Start starts the server, on 127.0.0.1 and a socket, and waits until the target is reached and asserted.
	Start bool `json:"start,omitempty"`
	// Port of the started server; 0 picks a free one.
	Port int `json:"port,omitempty"`
	// Owner is the operating system's user that owns the files and runs the server; only a worker that runs as root
	// can choose. Default: postgres for root, else the worker's own user.
	Owner string `json:"owner,omitempty"`
	// Tablespaces are OLD=NEW each: OLD is a tablespace's location on the source or its OID, NEW the absolute path of an
	// empty or missing directory. Others are laid below the target directory.
	Tablespaces []string `json:"tablespaces,omitempty"`
	// Delta restores into the data directory of a stopped server of the same system identifier: what is right is kept,
	// everything else is replaced or deleted.
	Delta bool `json:"delta,omitempty"`
	// DiscardWAL, with Delta, gives up WAL of that server which the repository does not have.
	DiscardWAL bool `json:"discardWal,omitempty"`
	// PlanHash, if given, must be the hash of the plan that this run makes, else it is refused.
	PlanHash string `json:"planHash,omitempty"`
}

// SplitTablespace takes OLD=NEW apart. An equals sign that belongs to OLD or NEW is written \=, as for pg_basebackup.
func SplitTablespace(s string) (oldPlace, newPlace string, err error) {
	parts := []string{""}
	for i := 0; i < len(s); i++ {
		last := &parts[len(parts)-1]
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '=':
			i++
			*last += "="
		case s[i] == '=':
			parts = append(parts, "")
		default:
			*last += s[i : i+1]
		}
	}
	if len(parts) != 2 || parts[0] == "" || !strings.HasPrefix(parts[1], "/") {
		return "", "", fmt.Errorf("tablespace %q: write OLD=NEW, where OLD is a location on the source or an OID, and NEW an absolute path", s)
	}
	return parts[0], parts[1], nil
}

// Validate names what is wrong.
func (in *RestoreInput) Validate() error {
	switch {
	case in.Cluster == "":
		return fmt.Errorf(`field "cluster" is required: the name of a cluster in lifeboat.yaml`)
	case !strings.HasPrefix(in.TargetDir, "/"):
		return fmt.Errorf(`field "targetDir" is %q: give the absolute path of an empty or missing directory`, in.TargetDir)
	case in.Host == "":
		return fmt.Errorf(`field "host" is required: the host whose worker shall restore (queue lifeboat@HOST)`)
	case in.Port < 0 || in.Port > 65535:
		return fmt.Errorf(`field "port" is %d: use 1 to 65535, or 0 for a free one`, in.Port)
	case in.Port != 0 && !in.Start:
		return fmt.Errorf(`field "port" needs "start": true`)
	case in.DiscardWAL && !in.Delta:
		return fmt.Errorf(`field "discardWal" needs "delta": true: elsewhere no WAL is at stake`)
	}
	for _, t := range in.Tablespaces {
		if _, _, err := SplitTablespace(t); err != nil {
			return err
		}
	}
	switch in.Action {
	case "", "promote", "pause", "shutdown":
	default:
		return fmt.Errorf(`field "action" is %q: use promote, pause or shutdown`, in.Action)
	}
	return in.Target.Validate()
}

// Validate checks the kind, and the zone of a time.
func (t *Target) Validate() error {
	switch t.Kind {
	case "", "latest", "immediate":
		if t.Value != "" {
			return fmt.Errorf("target %s takes no value", t.Kind)
		}
		return nil
	case "time":
		_, err := ParseTime(t.Value, time.Now())
		return err
	case "lsn", "xid", "name":
		if t.Value == "" {
			return fmt.Errorf("target %s needs a value", t.Kind)
		}
		return nil
	}
	return fmt.Errorf(`target kind %q: use time, lsn, xid, name, immediate or latest`, t.Kind)
}

// PlanRestoreInput starts activity PlanRestore.
type PlanRestoreInput struct {
	Cluster   string `json:"cluster"`
	TargetDir string `json:"targetDir"`
	Backup    string `json:"backup,omitempty"`
	Target    Target `json:"target"`
	Timeline  uint32 `json:"timeline,omitempty"`
	Action    string `json:"action,omitempty"`
	PlanHash  string `json:"planHash,omitempty"`
	// Tablespaces, Delta and DiscardWAL are those of RestoreInput.
	Tablespaces []string `json:"tablespaces,omitempty"`
	Delta       bool     `json:"delta,omitempty"`
	DiscardWAL  bool     `json:"discardWal,omitempty"`
	// Start says that a server will be started: without programs of its major version on the host nothing is begun.
	Start bool `json:"start,omitempty"`
}

// PlanRestoreResult carries the plan as the engine made it. Workflows pass it on and read only Summary and Hash.
type PlanRestoreResult struct {
	Hash    string          `json:"hash"`
	Summary string          `json:"summary"`
	Plan    json.RawMessage `json:"plan"`
}

// LayFilesInput starts activity LayFiles: everything but starting a server. The next attempt keeps what is laid.
type LayFilesInput struct {
	Plan  json.RawMessage `json:"plan"`
	Owner string          `json:"owner,omitempty"`
	// For a drill, the files are marked as a drill's, so that CleanUpDrill may remove them.
	DrillID string `json:"drillId,omitempty"`
}

// LayFilesResult tells what was laid.
type LayFilesResult struct {
	Files       int64   `json:"files"`
	Bytes       int64   `json:"bytes"`
	ReusedBytes int64   `json:"reusedBytes"`
	Seconds     float64 `json:"seconds"`
}

// StartServerInput starts activity StartServer, for a person: the server is detached and stays up.
type StartServerInput struct {
	Plan  json.RawMessage `json:"plan"`
	Owner string          `json:"owner,omitempty"`
	Port  int             `json:"port,omitempty"`
}

// StartServerResult tells what was reached.
type StartServerResult struct {
	Reached Reached `json:"reached"`
	Spans   Spans   `json:"spans"`
	Port    int     `json:"port"`
	Socket  string  `json:"socketDir"`
	PID     int     `json:"pid"`
}

// Reached is where recovery ended, as the server said.
type Reached struct {
	LSN string `json:"lsn"`
	// Time is that of the target for a time target, else of the last commit.
	Time         *time.Time `json:"time"`
	Timeline     uint32     `json:"timeline"`
	LastCommitAt *time.Time `json:"lastCommitAt"`
}

// Spans are the parts of a recovery in seconds.
type Spans struct {
	Fetch  float64 `json:"fetch"`  // laying the files, from the first read to the last fsync
	Replay float64 `json:"replay"` // from the server's start to the target
	Start  float64 `json:"start"`  // from the target to a server that takes writes
	Check  float64 `json:"check"`  // asserting and checking
}

// RestoreResult ends workflow Restore.
type RestoreResult struct {
	Cluster     string          `json:"cluster"`
	BackupID    string          `json:"backupId"`
	TargetDir   string          `json:"targetDir"`
	Target      Target          `json:"target"`
	Reached     *Reached        `json:"reached"` // null: nothing was started
	Plan        json.RawMessage `json:"plan"`
	Bytes       int64           `json:"bytes"`
	ReusedBytes int64           `json:"reusedBytes"`
	WALSegments int64           `json:"walSegments"`
	Spans       Spans           `json:"spans"`
	Seconds     float64         `json:"seconds"`
	Port        int             `json:"port,omitempty"`
	SocketDir   string          `json:"socketDir,omitempty"`
	WorkflowID  string          `json:"workflowId"`
}
