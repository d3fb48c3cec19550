package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"lifeboat/internal/pginstance"
)

// recordFile holds, beside the data, what a start for a person achieved: the next attempt of a run that died after
// that finds it (R21). It stands in the target directory and names the plan.
const recordFile = "lifeboat.started.json"

type record struct {
	PlanHash string          `json:"planHash"`
	Result   json.RawMessage `json:"result"`
}

// Record keeps the result of a finished start durably in the plan's directory.
func Record(p *Plan, result any) error {
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	data, err := json.Marshal(record{PlanHash: p.Hash, Result: raw})
	if err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	path := filepath.Join(p.TargetDir, recordFile)
	if err := errors.Join(writeDurably(path, data, 0o600, pginstance.Owner{}), chownAs(path, p.TargetDir)); err != nil {
		return fmt.Errorf("record the start: %w", err)
	}
	return nil
}

// Recorded reads what Record kept for this very plan.
func Recorded(p *Plan, result any) error {
	data, err := os.ReadFile(filepath.Join(p.TargetDir, recordFile))
	if err != nil {
		return fmt.Errorf("read the record of the start: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read the record of the start: %w", err)
	}
	if r.PlanHash != p.Hash {
		return errors.New("the record of the start is of another plan")
	}
	return json.Unmarshal(r.Result, result)
}

// chownAs gives a file to the owner of the directory: a file that the server cannot read would break its base backups.
func chownAs(path, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() {
		return nil
	}
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// WasStarted tells whether a server has run on the plan's files since they were laid: they are then no longer those of
// the backup.
func WasStarted(p *Plan) bool {
	_, err := os.Stat(filepath.Join(p.TargetDir, "postmaster.opts"))
	return err == nil
}

// ChangedFiles names the files of a laid directory that are not as in the backup: what pg_verifybackup must ignore.
func ChangedFiles() []string {
	names := []string{MarkerFile, recordFile, privateHBA}
	for _, name := range replaced {
		names = append(names, name, name+sourceSuffix)
	}
	return append(names, "recovery.signal")
}
