package activities

import (
	"context"
	"fmt"
	"slices"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
	"lifeboat/internal/drill"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
)

// RehearseMigration runs a plan on a clone: it starts a server on laid files, replays, applies, goes down and up again,
// and stops it. A clone that an earlier attempt has started is laid anew: nobody knows how far that one changed it.
// A statement that fails is a result, not an error.
func (r *Runner) RehearseMigration(ctx context.Context, in contract.RehearseMigrationInput, run Run) (contract.MigrationTrial, error) {
	none := contract.MigrationTrial{Files: []contract.RehearsedFile{}}
	p, err := decodePlan(in.Restore)
	if err != nil {
		return none, err
	}
	if err := r.drillPlace(p.TargetDir, in.DrillID); err != nil {
		return none, err
	}
	if recovery.WasStarted(p) {
		if err := r.layAnew(ctx, in, p, run); err != nil {
			return none, err
		}
	}
	tell, silence := tellMigration(ctx, run)
	defer silence()
	m, err := r.Migrator(in.MigrationSource, tell)
	if err != nil {
		return none, err
	}
	var trial *migrate.Rehearsal
	err = drill.WithClone(ctx, drill.CloneOptions{
		Plan: p, BinDirs: r.set.BinDirs, Owner: r.set.Owner, Logger: r.set.Logger, Progress: restoreProgress(run),
	}, func(ctx context.Context, clone *pginstance.Instance) error {
		server, err := r.cloneOf(ctx, in.MigrationSource, clone)
		if err == nil {
			trial, err = m.Rehearse(ctx, migrate.RehearseOptions{Clone: server, To: in.To, PlanHash: in.PlanHash})
		}
		return err
	})
	if err != nil {
		return none, err
	}
	out := trialOf(trial)
	out.BackupID = p.BackupID
	return out, nil
}

func (r *Runner) layAnew(ctx context.Context, in contract.RehearseMigrationInput, p *recovery.Plan, run Run) error {
	guard := pginstance.Guard{WorkRoot: r.set.WorkDir, Marker: recovery.MarkerFile}
	if err := pginstance.Destroy(ctx, p.TargetDir, guard); err != nil {
		return fmt.Errorf("remove the clone of an earlier attempt: %w", err)
	}
	_, err := r.LayFiles(ctx, contract.LayFilesInput{Plan: in.Restore, DrillID: in.DrillID}, run)
	return err
}

// cloneOf connects to the clone as the role, and to the database, of the original.
func (r *Runner) cloneOf(ctx context.Context, src contract.MigrationSource, clone *pginstance.Instance) (dbcore.Config, error) {
	var none dbcore.Config
	c, err := r.cluster(src.Cluster)
	if err != nil {
		return none, err
	}
	if src.Database != "" {
		c.Server.DBName = src.Database
	}
	conn, err := dbcore.Connect(ctx, c.Server)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	type identity struct{ Role, Name string }
	who, err := dbcore.One[identity](ctx, conn, "select session_user::text as role, current_database()::text as name")
	if err != nil {
		return none, fmt.Errorf("ask for the role of migrations: %w", err)
	}
	return dbcore.ParseDSN(clone.ConnString(who.Name, who.Role))
}

// trialOf sums a rehearsal up by file.
func trialOf(r *migrate.Rehearsal) contract.MigrationTrial {
	out := contract.MigrationTrial{
		Files: []contract.RehearsedFile{}, Seconds: r.Took.Seconds(), WALBytes: r.WALBytes,
		Reversed: r.Down == migrate.Pass,
	}
	if !out.Reversed {
		out.NotReversed = r.DownDetail
	}
	if r.Verdict == migrate.Fail && r.Down != migrate.Fail {
		out.Failure = r.Error
	}
	for _, st := range r.Statements {
		i := slices.IndexFunc(out.Files, func(f contract.RehearsedFile) bool { return f.Name == st.File })
		if i < 0 {
			i = len(out.Files)
			out.Files = append(out.Files, contract.RehearsedFile{Version: st.Version, Name: st.File, Locks: []string{}, Rewrites: []string{}})
		}
		f := &out.Files[i]
		f.Seconds += st.Took.Seconds()
		for _, l := range st.Locks {
			f.Locks = addOnce(f.Locks, l.Mode+" on "+l.Relation)
		}
		for _, name := range st.Rewrites {
			f.Rewrites = addOnce(f.Rewrites, name)
		}
	}
	return out
}

// addOnce bounds a list of a result, too: a file may touch thousands of tables.
func addOnce(list []string, text string) []string {
	if slices.Contains(list, text) || len(list) >= contract.MaxMigrationFindings {
		return list
	}
	return append(list, text)
}
