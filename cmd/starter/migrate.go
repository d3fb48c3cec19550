package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

func newMigrateCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Schema migrations: plan, check, rehearse, apply, and the way back",
		Long: "Apply golang-migrate's files (NUMBER_title.up.sql, NUMBER_title.down.sql) with a way back.\n\n" +
			"apply plans, checks, rehearses on a restored clone, takes a verified backup, names a restore point, applies, and\n" +
			"looks at the server afterwards. If that fails it goes down, if the way down was rehearsed and loses nothing, and\n" +
			"otherwise tells the ways back, ready to run. What is in the database is said in the result, whatever happened.\n\n" +
			"plan, check, status, down and repair always run here. The cluster's dsn usually names a maintenance database: give\n" +
			"the application's by --database.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return usagef("name one of plan, check, rehearse, apply, status, down and repair")
		},
	}
	cmd.AddCommand(newMigratePlanCommand(a), newMigrateCheckCommand(a), newMigrateRehearseCommand(a), newMigrateApplyCommand(a),
		newMigrateStatusCommand(a), newMigrateDownCommand(a), newMigrateRepairCommand(a))
	return cmd
}

// migrateFlags say what is migrated by which files.
type migrateFlags struct {
	source, database, dsn      string
	allowGaps, allowOutOfOrder bool
	to                         int64
}

func (f *migrateFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.source, "source", "", "folder of the migration files (required)")
	fl.StringVar(&f.database, "database", "", "database to migrate (default: that of the cluster's dsn)")
	fl.BoolVar(&f.allowGaps, "allow-gaps", false, "accept numbers that are missing in the row of files")
	fl.BoolVar(&f.allowOutOfOrder, "allow-out-of-order", false, "accept files that are older than the newest applied one")
	_ = cmd.MarkFlagRequired("source")
	_ = cmd.MarkFlagDirname("source")
}

// registerDirect adds what only commands that run here can take.
func (f *migrateFlags) registerDirect(cmd *cobra.Command) {
	f.register(cmd)
	cmd.Flags().StringVar(&f.dsn, "dsn", "", "server to migrate, instead of the cluster's; it needs no configuration (password by PGPASSFILE or PGPASSWORD)")
}

func (f *migrateFlags) registerTo(cmd *cobra.Command, otherwise string) {
	cmd.Flags().Int64Var(&f.to, "to", 0, "version to end at ("+otherwise+")")
}

// target is the version of --to, nil if it was not given.
func (f *migrateFlags) target(cmd *cobra.Command) *int64 {
	if !cmd.Flags().Changed("to") {
		return nil
	}
	return &f.to
}

// files reads the folder.
func (f *migrateFlags) files(cluster string) (contract.MigrationSource, error) {
	src := contract.MigrationSource{Cluster: cluster, Database: f.database, AllowGaps: f.allowGaps, AllowOutOfOrder: f.allowOutOfOrder}
	info, err := os.Stat(f.source)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", f.source)
	}
	if err != nil {
		return src, usagef("--source: %w", err)
	}
	if src.Files, err = activities.ReadMigrations(os.DirFS(f.source)); err != nil {
		return src, fmt.Errorf("--source %s: %w", f.source, err)
	}
	return src, nil
}

// migrator opens the files for a command that runs here.
func (a *app) migrator(f *migrateFlags, cluster string) (m *migrate.Migrator, end func(), err error) {
	src, err := f.files(cluster)
	if err != nil {
		return nil, nil, err
	}
	set, err := a.migrateSettings(f, cluster)
	if err != nil {
		return nil, nil, err
	}
	meter := a.newMeter()
	m, err = activities.NewRunner(set).Migrator(src, func(e migrate.Event) { meter.show(activities.MigrationProgress(e)) })
	return m, meter.end, err
}

func (a *app) migrateSettings(f *migrateFlags, cluster string) (activities.Settings, error) {
	if f.dsn == "" {
		return a.settings(cluster)
	}
	log, err := a.logger()
	if err != nil {
		return activities.Settings{}, err
	}
	server, err := dbcore.ParseDSN(f.dsn)
	if err != nil {
		return activities.Settings{}, usagef("--dsn: %w", err)
	}
	return activities.Settings{Logger: log, Clusters: map[string]activities.Cluster{cluster: {Server: server}}}, nil
}
