package activities

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

func TestSQLFiles(t *testing.T) {
	dir := fstest.MapFS{
		"1_a.up.sql": {Data: []byte("select 1;")}, "2_b.up.sql": {Data: []byte("")}, "README": {Data: []byte("no SQL")}, "sub/3_c.up.sql": {Data: []byte("deeper")},
	}
	files, err := ReadMigrations(dir)
	if err != nil || len(files) != 2 || files[0] != (contract.MigrationFile{Name: "1_a.up.sql", Text: "select 1;"}) {
		t.Fatalf("read %v, %v", files, err)
	}
	if err := fstest.TestFS(sqlFiles(files), "1_a.up.sql", "2_b.up.sql"); err != nil {
		t.Error(err)
	}
	if _, err := fs.ReadFile(sqlFiles(files), "README"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for name, dir := range map[string]fstest.MapFS{"empty": {}, "not text": {"1_a.up.sql": {Data: []byte{0xff, 0xfe}}}} {
		if _, err := ReadMigrations(dir); !errors.Is(err, migrate.ErrSource) || ErrorType(err) != contract.ErrorInvalidInput {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What an attempt may go on with is the rest of its plan, and nothing else.
func TestRestOf(t *testing.T) {
	whole := contract.MigrationPlan{Files: []contract.MigrationPlanned{{Version: 1, Checksum: "a"}, {Version: 2, Checksum: "b"}, {Version: 3, Checksum: "c"}}}
	rest := func(files ...migrate.PlannedFile) *migrate.Plan { return &migrate.Plan{Files: files} }
	done := func(version int64, checksum, direction, state, now string) *migrate.Status {
		return &migrate.Status{
			History:    []migrate.HistoryLine{{Version: version, Checksum: checksum, Direction: direction, State: state}},
			Migrations: []migrate.MigrationStatus{{Version: version, State: now}},
		}
	}
	two, three := migrate.PlannedFile{Version: 2, Checksum: "b"}, migrate.PlannedFile{Version: 3, Checksum: "c"}
	for name, c := range map[string]struct {
		plan   *migrate.Plan
		status *migrate.Status
		want   bool
	}{
		"the rest":             {rest(two, three), done(1, "a", "up", "done", "applied"), true},
		"all, as it was":       {rest(migrate.PlannedFile{Version: 1, Checksum: "a"}, two, three), &migrate.Status{}, true},
		"another file":         {rest(two, migrate.PlannedFile{Version: 3, Checksum: "x"}), done(1, "a", "up", "done", "applied"), false},
		"a file more":          {rest(migrate.PlannedFile{Version: 1, Checksum: "a"}, two, three, migrate.PlannedFile{Version: 4}), &migrate.Status{}, false},
		"in another order":     {rest(three, two), done(1, "a", "up", "done", "applied"), false},
		"applied otherwise":    {rest(two, three), done(1, "x", "up", "done", "applied"), false},
		"taken back meanwhile": {rest(two, three), done(1, "a", "up", "done", "pending"), false},
		"adopted, not applied": {rest(two, three), done(1, "a", "adopted", "done", "applied"), false},
		"abandoned":            {rest(two, three), done(1, "a", "up", "abandoned", "applied"), false},
	} {
		if got := restOf(whole, c.plan, c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestChecksAfter(t *testing.T) {
	in := contract.CheckMigratedInput{Version: 2, Before: contract.MigrationHealth{InvalidIndexes: []string{"old"}, ArchiverFailures: 3}}
	for failed, c := range map[string]struct {
		health migrate.Health
		status migrate.Status
	}{
		"":                {migrate.Health{InvalidIndexes: []string{"old"}, ArchiverFailures: 3, ArchiverFailing: true}, migrate.Status{Version: 2}},
		"answers":         {migrate.Health{InRecovery: true}, migrate.Status{Version: 2}},
		"version":         {migrate.Health{}, migrate.Status{Version: 1}},
		"invalid indexes": {migrate.Health{InvalidIndexes: []string{"new", "old"}}, migrate.Status{Version: 2}},
		"archiver":        {migrate.Health{ArchiverFailures: 4, ArchiverFailing: true}, migrate.Status{Version: 2}},
	} {
		for _, check := range checksAfter(in, &c.health, &c.status) {
			if want := check.ID == failed; (check.Verdict == contract.Fail) != want {
				t.Errorf("%q: %+v", failed, check)
			}
		}
	}
}

// The queries of others may hold data, and what is told gets into Temporal's history.
func TestMigration_TellsNoQueries(t *testing.T) {
	b := migrate.Blocker{PID: 7, User: "app", Application: "shop", State: "active", Seconds: 3, Query: "select 'secret'", Lock: "AccessExclusiveLock on t"}
	p := MigrationProgress(migrate.Event{Kind: "blocked", File: "1_a.up.sql", Statement: 1, Statements: 2, Blockers: []migrate.Blocker{b, b}})
	failure := failureText(&migrate.BlockedError{Attempts: 10, Blockers: []migrate.Blocker{b}, Err: errors.New("55P03")})
	report := &migrate.CheckReport{Items: []migrate.CheckItem{{Name: "lock", Verdict: migrate.Fail, Detail: b.String()}, {Name: "blockers", Verdict: migrate.Fail, Detail: b.String()}}}
	var checks string
	for _, c := range checksBefore(report, &migrate.Health{}, &migrate.Status{Running: []migrate.Blocker{b}}) {
		checks += c.ID + c.Observed + c.Expected
	}
	for _, text := range []string{p.Waiting, failure, checks} {
		if strings.Contains(text, "secret") {
			t.Errorf("%q has a query", text)
		}
	}
	if p.Phase != "1_a.up.sql, statement 1 of 2" || !strings.Contains(p.Waiting, "process 7") || !strings.Contains(p.Waiting, "and 1 more") || !strings.Contains(failure, "process 7") {
		t.Errorf("%+v, %s", p, failure)
	}
}

// A statement that lasts is told of again and again, so that its worker is not taken for hung.
func TestTeller(t *testing.T) {
	var told []contract.Progress
	l := &teller{run: Run{Progress: func(p contract.Progress) { told = append(told, p) }}}
	if _, ok := l.lasting(time.Now()); ok {
		t.Error("there is nothing to tell of yet")
	}
	l.tell(migrate.Event{Kind: "statement", File: "1_a.up.sql", Statement: 1, Statements: 2})
	first, _ := l.lasting(time.Now().Add(time.Minute + time.Second))
	second, _ := l.lasting(time.Now().Add(2*time.Minute + time.Second))
	if len(told) != 1 || first == second || second.Phase != "1_a.up.sql, statement 1 of 2, for 2 min" {
		t.Errorf("told %v, %v, %v", told, first, second)
	}
}

func TestMigrationErrors(t *testing.T) {
	statement := &migrate.StatementError{File: "1_a.up.sql", Statement: 1, Err: errors.New("connection reset"), Left: "rolled back"}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&migrate.StateError{Problems: []migrate.Problem{{Err: migrate.ErrEdited}}}, contract.ErrorRefused},
		{&migrate.UnsafeError{}, contract.ErrorRefused},
		{&migrate.LockedError{}, contract.ErrorBusy},
		{&migrate.BlockedError{Err: errors.New("55P03")}, contract.ErrorFailed},
		{migrate.ErrNoVersion, contract.ErrorInvalidInput},
		{statement, ""}, // another attempt may have a connection
		{errors.New("else"), ""},
	} {
		if got := ErrorType(c.err); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
		if c.want != "" && migrateRemedy(c.err) == "" {
			t.Errorf("no remedy for %v", c.err)
		}
	}
}
