package migrate

import (
	"context"
	"time"

	"lifeboat/dbcore"
)

// Status is what database and files say of each other.
type Status struct {
	// Version is that of golang-migrate's table, -1 for none, and Dirty its mark.
	Version int64 `json:"version"`
	Dirty   bool  `json:"dirty"`
	// Adopt says that there is no history yet: the database comes from golang-migrate.
	Adopt bool `json:"adopt,omitempty"`
	// Migrations are all files and all applied versions, lowest first.
	Migrations []MigrationStatus `json:"migrations"`
	// Problems are what Plan would fail with.
	Problems []Problem `json:"problems,omitempty"`
	// Open is the file that is under way, or stopped half-way.
	Open *OpenFile `json:"open,omitempty"`
	// Running is who holds the migration lock now; empty if nobody does.
	Running []Blocker `json:"running,omitempty"`
	// History are the last lines, the newest first; at most 100.
	History []HistoryLine `json:"history,omitempty"`
}

// MigrationStatus is one version.
type MigrationStatus struct {
	Version int64  `json:"version"`
	Title   string `json:"title"`
	// State is applied, pending, stopped (half-way), or missing (applied, but there is no file).
	State      string     `json:"state"`
	AppliedAt  *time.Time `json:"appliedAt,omitempty"`
	AppVersion string     `json:"appVersion,omitempty"`
	Reversible bool       `json:"reversible"`
}

// OpenFile is a file that is not finished.
type OpenFile struct {
	Version   int64     `json:"version"`
	Direction Direction `json:"direction"`
	// State is running or failed. Running is also what a migrator that died leaves behind: see Status.Running.
	State string `json:"state"`
	// Done is how many of Statements are known to be done; Started is the number of the one that was started after
	// those, 0 if none was.
	Done       int    `json:"done"`
	Started    int    `json:"started,omitempty"`
	Statements int    `json:"statements"`
	Error      string `json:"error,omitempty"`
	// Text says all that in a sentence, Next what to do.
	Text string `json:"text"`
	Next string `json:"next"`
}

// HistoryLine is one line of the history.
type HistoryLine struct {
	Version    int64      `json:"version"`
	Title      string     `json:"title"`
	Direction  string     `json:"direction"` // up, down, or adopted from golang-migrate
	State      string     `json:"state"`     // done, failed, running or abandoned
	Checksum   string     `json:"checksum"`
	AppVersion string     `json:"appVersion,omitempty"`
	PlanHash   string     `json:"planHash,omitempty"`
	Role       string     `json:"role"`
	Started    time.Time  `json:"started"`
	Finished   *time.Time `json:"finished,omitempty"`
	Error      string     `json:"error,omitempty"`
}

const statusHistory = 100

// Status reads the state of the database, and changes nothing. Problems are in it, not its error.
func (m *Migrator) Status(ctx context.Context) (*Status, error) {
	var status *Status
	err := m.readOnly(ctx, func(ctx context.Context, q *dbcore.Tx) error {
		t, err := m.tables(ctx, q)
		if err != nil {
			return err
		}
		s, err := t.readState(ctx, q)
		if err != nil {
			return err
		}
		status = m.status(s)
		status.Running, err = m.running(ctx, q, t)
		status.explain(s)
		return err
	})
	return status, err
}

// running says who holds the lock.
func (m *Migrator) running(ctx context.Context, q dbcore.Querier, t tables) ([]Blocker, error) {
	name, err := dbcore.One[string](ctx, q, "select current_database()::text")
	if err != nil {
		return nil, err
	}
	lock, err := lockKeys(name, t.schema, t.table)
	if err != nil {
		return nil, err
	}
	return holdersOf(ctx, q, lock)
}

func (m *Migrator) status(s *state) *Status {
	status := &Status{Version: s.version, Dirty: s.dirty, Adopt: s.adopt, Problems: m.problems(s)}
	files := map[int64]bool{}
	for _, f := range m.files {
		files[f.version] = true
		ms := MigrationStatus{Version: f.version, Title: f.title, State: "pending", Reversible: f.down != nil && f.down.irreversible == ""}
		if s.open != nil && s.open.Version == f.version {
			ms.State = "stopped"
		} else if s.isApplied(f.version) {
			ms.State = "applied"
			if r, ok := s.applied[f.version]; ok {
				ms.AppliedAt, ms.AppVersion = r.FinishedAt, r.AppVersion
			}
		}
		status.Migrations = append(status.Migrations, ms)
	}
	for _, v := range s.appliedVersions() {
		if r := s.applied[v]; !files[v] {
			status.insert(MigrationStatus{Version: v, Title: r.Title, State: "missing", AppliedAt: r.FinishedAt, AppVersion: r.AppVersion})
		}
	}
	for i := len(s.history) - 1; i >= 0 && len(status.History) < statusHistory; i-- {
		status.History = append(status.History, historyLine(s.history[i]))
	}
	return status
}

func (s *Status) insert(m MigrationStatus) {
	i := 0
	for i < len(s.Migrations) && s.Migrations[i].Version < m.Version {
		i++
	}
	s.Migrations = append(s.Migrations[:i], append([]MigrationStatus{m}, s.Migrations[i:]...)...)
}

func historyLine(r record) HistoryLine {
	h := HistoryLine{
		Version: r.Version, Title: r.Title, Direction: r.Direction, State: r.State, Checksum: r.Checksum, AppVersion: r.AppVersion,
		PlanHash: r.PlanHash, Role: r.Role, Started: r.StartedAt, Finished: r.FinishedAt,
	}
	if r.Error != nil {
		h.Error = *r.Error
	}
	return h
}

// explain says of an open file what is known and what to do.
func (s *Status) explain(st *state) {
	r := st.open
	if r == nil {
		return
	}
	o := &OpenFile{
		Version: r.Version, Direction: Direction(r.Direction), State: r.State, Done: r.StatementsDone, Statements: r.Statements, Text: openText(r),
	}
	if r.StatementStarted > r.StatementsDone {
		o.Started = r.StatementStarted
	}
	if r.Error != nil {
		o.Error = *r.Error
	}
	switch {
	case len(s.Running) > 0:
		o.Next = "it is under way in " + s.Running[0].String()
	case r.State == "running" && o.Started > 0:
		o.Next = "run repair: it asks the catalogs what became of the statement"
	default:
		o.Next = "mend the cause and apply again: it goes on at the statement that failed"
		if r.Direction == "down" {
			o.Next = "mend the cause and go down again: it goes on at the statement that failed"
		}
	}
	s.Open = o
}
