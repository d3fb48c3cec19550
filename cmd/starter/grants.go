package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/config"
	"lifeboat/internal/pg"
)

// grant is one privilege that Lifeboat's role needs.
type grant struct {
	ID  string   `json:"id"`
	Why string   `json:"why"`
	SQL []string `json:"sql"`

	// held is SQL that is true, of the role of the session and its database, if it has the privilege.
	held string
	// lacking is what check says where it is not held: a failure where a backup or a drill would not work.
	lacking string
}

// The grants that depend on how backups read the server.
const (
	grantReplication = "replication"
	grantBackup      = "backup functions"
)

// defaultRole is who SQL is printed for where no dsn names one.
const (
	defaultRole     = "lifeboat"
	defaultDatabase = "postgres"
)

// grantsOf lists what a role needs, in the order in which a superuser has to run it, in the database that the dsn names:
// what may be executed is a matter of each database. Every statement may be run again. The functions have the same
// signatures in all supported versions (TestPrintGrants runs them on each).
func grantsOf(role string) []grant {
	ident := `"` + strings.ReplaceAll(role, `"`, `""`) + `"`
	execute := func(function string) string {
		return "GRANT EXECUTE ON FUNCTION pg_catalog." + function + " TO " + ident
	}
	return []grant{
		{
			grantReplication, "to log in, and to receive base backups over a replication connection",
			[]string{
				"DO $lifeboat$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = " + quoteSQL(role) + ") THEN " +
					"CREATE ROLE " + ident + "; END IF; END $lifeboat$",
				"ALTER ROLE " + ident + " LOGIN REPLICATION",
			},
			"(select rolreplication or rolsuper from pg_roles where rolname = current_user)", outcomeFail,
		},
		{
			grantBackup, "backups from the data directory",
			[]string{basebackup.BackupGrant(ident)},
			mayExecute("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"), outcomeFail,
		},
		{
			"server files", "backups hold the configuration files, and read doubtful pages a second time. It lets the role read every file that the server can; backups do without", basebackup.ConfigurationGrants(role),
			"pg_has_role('pg_read_all_settings', 'usage') and pg_has_role('pg_read_server_files', 'usage') and " +
				mayExecute("pg_read_binary_file(text, bigint, bigint, boolean)", "pg_ls_dir(text, boolean, boolean)"), outcomeWarning,
		},
		{
			"wal switch", "drills end a WAL segment, so that what they look for is archived at once",
			[]string{execute("pg_switch_wal()")},
			mayExecute("pg_switch_wal()"), outcomeFail,
		},
		{
			"restore points", "restore points, for `restore --to-name`",
			[]string{execute("pg_create_restore_point(text)")},
			mayExecute("pg_create_restore_point(text)"), outcomeWarning,
		},
		{
			"monitoring", "to count the WAL that waits for archiving, and to measure the databases",
			[]string{"GRANT pg_monitor TO " + ident},
			"pg_has_role('pg_monitor', 'usage')", outcomeWarning,
		},
		{
			"canary", "drills write two rows and look for them in the restored server",
			[]string{
				"CREATE SCHEMA IF NOT EXISTS lifeboat",
				"GRANT USAGE, CREATE ON SCHEMA lifeboat TO " + ident,
				"ALTER TABLE IF EXISTS lifeboat.canary OWNER TO " + ident,
			},
			mayWriteCanary, outcomeFail,
		},
	}
}

// mayExecute is SQL: may the session's role call these functions of pg_catalog?
func mayExecute(functions ...string) string {
	parts := make([]string, len(functions))
	for i, f := range functions {
		parts[i] = "has_function_privilege('pg_catalog." + f + "', 'execute')"
	}
	return strings.Join(parts, " and ")
}

// mayWriteCanary is SQL for what drill.WriteCanary does: make schema and table where they are missing, else write.
const mayWriteCanary = `case
	when not exists (select from pg_namespace where nspname = 'lifeboat') then has_database_privilege(current_database(), 'create')
	when not has_schema_privilege((select oid from pg_namespace where nspname = 'lifeboat'), 'usage') then false
	else coalesce((select has_table_privilege(c.oid, 'select') and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'delete')
	                 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'lifeboat' and c.relname = 'canary'),
	              has_schema_privilege((select oid from pg_namespace where nspname = 'lifeboat'), 'create')) end`

// missingGrants are those of a session's role that it lacks.
func missingGrants(ctx context.Context, q dbcore.Querier) (role string, missing []grant, err error) {
	if role, err = dbcore.One[string](ctx, q, "select current_user::text"); err != nil {
		return "", nil, err
	}
	for _, g := range grantsOf(role) {
		held, err := dbcore.One[bool](ctx, q, "select "+g.held)
		if err != nil {
			return role, nil, fmt.Errorf("ask whether role %s may do what %s needs: %w", role, g.ID, err)
		}
		if !held {
			missing = append(missing, g)
		}
	}
	return role, missing, nil
}

func quoteSQL(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// grantSet is what one role needs in one database.
type grantSet struct {
	Clusters []string `json:"clusters"`
	Role     string   `json:"role"`
	Database string   `json:"database"`
	Majors   []int    `json:"postgresMajors"`
	Grants   []grant  `json:"grants"`
}

// printGrants prints what a superuser has to run. It asks no server: who needs it often cannot log in yet.
func (a *app) printGrants(args []string, role string) error {
	sets, err := a.grantSets(args, role)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(struct {
			Grants []grantSet `json:"grants"`
		}{sets})
	}
	return a.lines(func(p *printer) {
		for i, s := range sets {
			if i > 0 {
				p.line("")
			}
			p.grants(s)
		}
	})
}

func (p *printer) grants(s grantSet) {
	who := ""
	if len(s.Clusters) > 0 {
		who = " of " + strings.Join(s.Clusters, ", ")
	}
	p.line("-- What Lifeboat's role%s needs, on PostgreSQL %d to %d. Run it as a superuser in database %s:", who, pg.MinMajor, pg.MaxMajor, oneLine(s.Database))
	p.line("--   psql -X -v ON_ERROR_STOP=1 -d %s -f FILE", oneLine(s.Database))
	p.line("-- It sets no password; pg_hba.conf must let the role in to this database, and to \"replication\".")
	for _, g := range s.Grants {
		p.line("\n-- %s: %s", g.ID, g.Why)
		for _, sql := range g.SQL {
			p.line("%s;", sql)
		}
	}
}

// oneLine keeps a name from ending the comment that it stands in.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// grantSets are those of the clusters that were named, or of all; without a configuration, of a role by the usual name.
func (a *app) grantSets(args []string, role string) ([]grantSet, error) {
	names, err := a.clusterNames(args)
	switch {
	case errors.Is(err, config.ErrNotFound) && len(args) == 0, err == nil && len(names) == 0:
		return addGrants(nil, "", cmp.Or(role, defaultRole), defaultDatabase), nil
	case err != nil:
		return nil, err
	}
	var out []grantSet
	for _, name := range names {
		_, c, err := a.cluster(name)
		if err != nil {
			return nil, err
		}
		for _, server := range serversOf(c) {
			user := cmp.Or(role, server.User, defaultRole)
			out = addGrants(out, name, user, cmp.Or(server.DBName, server.User, defaultDatabase))
		}
	}
	return out, nil
}

func serversOf(c activities.Cluster) []dbcore.Config {
	out := []dbcore.Config{c.Server}
	for i := range c.Hosts {
		out = append(out, c.Hosts[i].Server)
	}
	return out
}

// addGrants adds a role and its database, once; the clusters that need them are listed together.
func addGrants(sets []grantSet, cluster, role, database string) []grantSet {
	i := slices.IndexFunc(sets, func(s grantSet) bool { return s.Role == role && s.Database == database })
	if i < 0 {
		s := grantSet{Clusters: []string{}, Role: role, Database: database, Grants: grantsOf(role)}
		for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
			s.Majors = append(s.Majors, major)
		}
		sets, i = append(sets, s), len(sets)
	}
	if cluster != "" && !slices.Contains(sets[i].Clusters, cluster) {
		sets[i].Clusters = append(sets[i].Clusters, cluster)
	}
	return sets
}
