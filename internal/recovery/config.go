package recovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"lifeboat/internal/pg"
)

// privateHBA is used while this package runs the server: its socket stands in a directory that only the owner enters.
const privateHBA = "lifeboat_private_hba.conf"

// configure lays the configuration: a minimal one of our own that starts (R4) and makes the server nobody's successor
// (R2). The source's own files stand beside it with sourceSuffix.
func (l *layer) configure() error {
	files := map[string]string{
		"postgresql.conf":      l.plan.serverConfig(l.opts.FetchCommand),
		"postgresql.auto.conf": "# Settings of ALTER SYSTEM. Those of the source are in postgresql.auto.conf" + sourceSuffix + ".\n",
		"pg_hba.conf": "# Laid by Lifeboat; the source's is pg_hba.conf" + sourceSuffix + ".\n" +
			"local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n",
		"pg_ident.conf": "# Laid by Lifeboat; the source's is pg_ident.conf" + sourceSuffix + ".\n",
		privateHBA: "# Used while Lifeboat runs this server: only its own user can enter the directory of the socket.\n" +
			"local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
		"recovery.signal": "",
	}
	if err := l.setAside(files); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		l.name(name)
		if err := writeFile(l.root, name, []byte(files[name]), l.owner, l.fileMode()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// setAside keeps the configuration that a server had before it was restored in place: it may be newer than the backup's,
// and the restore lays one of its own. What Lifeboat itself has laid there is not worth keeping.
func (l *layer) setAside(laid map[string]string) error {
	if !l.plan.Delta {
		return nil
	}
	for _, name := range replaced {
		l.name(name + asideSuffix)
		have, err := l.root.ReadFile(name)
		if missing(err) || err == nil && (string(have) == laid[name] || strings.HasPrefix(string(have), "# Laid by Lifeboat")) {
			continue
		}
		if err == nil {
			err = l.root.Rename(name, name+asideSuffix)
		}
		if err != nil {
			return fmt.Errorf("keep %s: %w", name, err)
		}
	}
	return nil
}

// serverConfig is the postgresql.conf of a restored server.
func (p *Plan) serverConfig(fetch []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Laid by Lifeboat: cluster %s, backup %s, plan %s.\n", p.Cluster, p.BackupID, p.Hash)
	b.WriteString("# A minimal configuration that starts. The source's own stands beside it: postgresql.conf" + sourceSuffix + "\n\n")
	set := func(name, value string) { fmt.Fprintf(&b, "%s = %s\n", name, quoteSetting(value)) }
	b.WriteString("# This server is nobody's successor: it does not archive, connect out, or run jobs.\n")
	set("listen_addresses", "127.0.0.1")
	set("archive_mode", "off")
	set("primary_conninfo", "")
	set("max_logical_replication_workers", "0") // subscriptions
	set("shared_preload_libraries", "")         // job runners
	set("session_preload_libraries", "")
	b.WriteString("\n# At least what the WAL asks for.\n")
	set("hot_standby", "on")
	for _, name := range slices.Sorted(maps.Keys(p.Settings)) {
		set(name, fmt.Sprint(p.Settings[name]))
	}
	if p.InPlaceTablespaces {
		set("allow_in_place_tablespaces", "on") // or replay panics over a tablespace that is no link
	}
	b.WriteString("\n# Recovery, by the plan.\n")
	set("restore_command", p.restoreCommand(fetch))
	if p.Gap != "" {
		// Reading ahead of the target would ask for the missing segment, and wal-fetch must stop at a gap (R16).
		set("recovery_prefetch", "off")
	}
	for _, kv := range p.recoverySettings() {
		set(kv[0], kv[1])
	}
	return b.String()
}

// recoverySettings are built from the plan's values, never passed through (R4).
func (p *Plan) recoverySettings() [][2]string {
	inclusive := "on"
	if p.Target.Exclusive {
		inclusive = "off"
	}
	settings := [][2]string{
		{"recovery_target_timeline", fmt.Sprint(p.Timeline)},
		{"recovery_target_action", string(p.Action)},
	}
	switch p.Target.Kind {
	case Immediate:
		settings = append(settings, [2]string{"recovery_target", "immediate"})
	case Time:
		g, _ := p.Target.parse() // it was parsed when the plan was made
		settings = append(settings, [2]string{"recovery_target_time", pg.FormatRecoveryTime(g.time)})
	case Name:
		settings = append(settings, [2]string{"recovery_target_name", p.Target.Value})
	case Latest:
		// The frontier of the plan, to the record: more WAL may come while the restore runs (R3).
		settings = append(settings, [2]string{"recovery_target_lsn", p.Stop.At.String()})
	case LSN:
		settings = append(settings, [2]string{"recovery_target_lsn", p.Target.Value})
	case XID:
		settings = append(settings, [2]string{"recovery_target_xid", p.Target.Value})
	}
	return append(settings, [2]string{"recovery_target_inclusive", inclusive})
}

func (p *Plan) restoreCommand(fetch []string) string {
	var b strings.Builder
	for _, arg := range fetch {
		b.WriteString(quoteShell(arg) + " ")
	}
	fmt.Fprintf(&b, `wal-fetch %%f "%%p" --cluster %s --need %s`, quoteShell(p.Cluster), quoteShell(p.Need))
	return b.String()
}

// quoteShell quotes an argument for the shell, and for PostgreSQL, to which a percent sign means something.
func quoteShell(s string) string {
	s = strings.ReplaceAll(s, "%", "%%")
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// quoteSetting quotes a value for postgresql.conf (config-setting, "Parameter Names and Values"; escapes as GUC_scanstr,
// guc-file.l, undoes them). A line break must not end the setting.
func quoteSetting(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`).Replace(s) + "'"
}
