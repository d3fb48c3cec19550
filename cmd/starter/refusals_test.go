package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// archives are one cluster's backup in three archives: as it was taken, with a segment missing, and with two timelines.
type archives struct {
	*protected
	foreign                 *pgtest.Server
	gap, branches           string // folders of repositories, beside repo
	backup                  string
	before, within, onBoth  string // times
	lsnBefore, lsnBehindGap string
	dir                     string // target directories are made here
}

const microseconds = `to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

// now is the server's time, between two commits.
func (a *archives) now(t *testing.T) string {
	t.Helper()
	return a.SQL(t, "select "+microseconds+" from pg_sleep(0.01)")
}

func newArchives(t *testing.T) *archives {
	t.Helper()
	a := &archives{protected: protect(t), dir: pgtest.TempDir(t)}
	a.gap, a.branches = a.repo+"-gap", a.repo+"-branches"
	a.Exec(t, "create table orders as select g as id from generate_series(1, 1000) g")
	a.before, a.lsnBefore = a.now(t), a.SQL(t, "select pg_current_wal_lsn()")
	a.Exec(t, "insert into orders values (1001)")
	a.backup = a.run(t, "backup", "orders", "--local", "--json").must(t, 0).object(t)["backupId"].(string)
	a.Exec(t, "insert into orders values (1002)")
	a.within = a.now(t)
	a.archive(t)
	lost := a.SQL(t, "select pg_walfile_name(pg_current_wal_lsn())")
	a.archive(t)
	a.Exec(t, "insert into orders values (1003)")
	a.lsnBehindGap = a.SQL(t, "select pg_current_wal_lsn()")
	a.archive(t)
	a.archive(t)
	a.Stop(t)
	copyTree(t, a.repo, a.gap)
	found, err := filepath.Glob(a.gap + "/clusters/orders/wal/segments/*/" + lost)
	if err != nil || len(found) != 1 {
		t.Fatalf("segment %s is %v, %v", lost, found, err)
	}
	if err := os.Remove(found[0]); err != nil {
		t.Fatal(err)
	}
	copyTree(t, a.repo, a.branches)
	a.fork(t)
	a.foreign = pgtest.New(t, pgtest.Options{OwnIdentity: true, Archive: func(*pgtest.Server) string { return "true" }})
	return a
}

// fork lets a copy of the server be promoted and go on beside it, both archiving to the same place.
func (a *archives) fork(t *testing.T) {
	t.Helper()
	command := fmt.Sprintf("%s --repository file://%s wal-push %%p --cluster orders", a.program, a.branches)
	heir := filepath.Join(a.Dir, "heir")
	copyTree(t, a.DataDir, heir)
	signal := filepath.Join(heir, "recovery.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(signal); err != nil {
		t.Fatal(err)
	}
	in, err := pginstance.Start(t.Context(), pginstance.Options{
		Binaries: a.Bin, DataDir: heir, Owner: pgtest.Owner(t).Name, SocketOnly: true,
		Settings: map[string]string{"archive_command": command, "restore_command": "false"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if _, err := in.WaitReady(t.Context(), pginstance.Promoted); err != nil {
		t.Fatal(err)
	}
	a.Start(t)
	a.Set(t, map[string]string{"archive_command": command})
	two := server{in}
	two.exec(t, "insert into orders values (2001)")
	a.Exec(t, "insert into orders values (3001)")
	a.onBoth = a.now(t)
	two.exec(t, "insert into orders values (2002)")
	a.Exec(t, "insert into orders values (3002)")
	archived := func(segment string) {
		pgtest.Eventually(t, segment+" archived", func() bool {
			found, _ := filepath.Glob(a.branches + "/clusters/orders/wal/segments/*/" + segment)
			return len(found) == 1
		})
	}
	archived(two.one(t, "select pg_walfile_name(pg_switch_wal())"))
	archived(a.SQL(t, "select pg_walfile_name(pg_switch_wal())"))
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Fatal(err)
	}
	a.Stop(t)
}

// at gives a restore from one of the archives, without any configuration, into a directory that does not exist.
func (a *archives) at(folder string, args ...string) call {
	target := filepath.Join(a.dir, "target")
	return call{program: a.program, args: append([]string{
		"--repository", "file://" + folder, "restore", "orders", "--target-dir", target, "--local",
	}, args...)}
}

// with runs the program by a configuration of its own.
func (a *archives) with(t *testing.T, text string, args ...string) call {
	t.Helper()
	path := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return call{program: a.program, env: []string{"LIFEBOAT_CONFIG=" + path}, args: args}
}

// configuration protects cluster orders, and says where its server is.
func (a *archives) configuration(dsn string) string {
	return fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {orders: {dsn: %q}}\n", a.repo, dsn)
}

// TestRefusals: each is told by its exit code, its code and a hint, and nothing is written.
func TestRefusals(t *testing.T) {
	a := newArchives(t)
	parts := []map[string]refusal{
		a.refusedPlaces(t), a.refusedTargets(), a.refusedServers(t), a.refusedRepositories(t), a.refusedUsage(t),
	}
	before, all := digests(t, a.repo, a.dir), digests(t, a.gap, a.branches, a.DataDir)
	for _, part := range parts {
		for name, r := range part {
			t.Run(name, func(t *testing.T) { r.check(t, before) })
		}
	}
	unchanged(t, all)
	// What is refused above is refused for its reason alone: the same command, right, is not.
	right := a.at(a.repo, "--to", a.within, "--plan")
	right.run(t).must(t, 0)
	for _, timeline := range []string{"1", "2"} {
		right := a.at(a.branches, "--to", a.onBoth, "--timeline", timeline, "--plan")
		right.run(t).must(t, 0)
	}
}

// refusedPlaces are directories that a restore must not write to (R1).
func (a *archives) refusedPlaces(t *testing.T) map[string]refusal {
	used := filepath.Join(a.dir, "used")
	mkdir(t, a.dir, "used")
	if err := os.WriteFile(filepath.Join(used, "precious"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	into := func(dir string) call {
		return call{program: a.program, args: []string{"--repository", "file://" + a.repo, "restore", "orders", "--local", "--target-dir", dir}}
	}
	return map[string]refusal{
		"a directory that is not empty": {call: into(used), exit: 5, code: "Refused", says: "precious", hint: "empty or missing directory"},
		"the live data directory":       {call: into(a.DataDir), exit: 5, code: "Refused", says: "not empty", hint: "empty or missing directory", still: []string{a.DataDir}},
		"within a data directory":       {call: into(a.DataDir + "/base/x"), exit: 5, code: "Refused", says: "lies within " + a.DataDir, hint: "outside", still: []string{a.DataDir}},
		"below what is not there":       {call: into(a.dir + "/no/such"), exit: 5, code: "Refused", says: "not a directory", hint: "create it"},
		"the root directory":            {call: into("/"), exit: 5, code: "Refused", says: "not an absolute path"},
	}
}

// refusedTargets are restores that could not reach what they were asked for.
func (a *archives) refusedTargets() map[string]refusal {
	late := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	return map[string]refusal{
		"a time before the backup":     {call: a.at(a.repo, "--to", a.before), exit: 5, code: "Refused", says: "before it was begun", hint: "lifeboat backups"},
		"a position before the backup": {call: a.at(a.repo, "--to-lsn", a.lsnBefore), exit: 5, code: "Refused", says: "before it was consistent"},
		"a time after the archive":     {call: a.at(a.repo, "--to", late), exit: 5, code: "Refused", says: "no transaction later than the target"},
		"a position after the archive": {call: a.at(a.repo, "--to-lsn", "FF/0"), exit: 5, code: "Refused", says: "the gap-free WAL ends at"},
		"a name that nobody gave":      {call: a.at(a.repo, "--to-name", "nosuch"), exit: 5, code: "Refused", says: "does not hold the target"},
		"across a gap":                 {call: a.at(a.gap, "--to-lsn", a.lsnBehindGap), exit: 5, code: "Refused", says: "is missing, though later ones are there", hint: "wal-status"},
		"an unknown timeline":          {call: a.at(a.repo, "--timeline", "7"), exit: 5, code: "Refused", says: "7", hint: "wal-status"},
		"a time on two timelines":      {call: a.at(a.branches, "--to", a.onBoth), exit: 5, code: "Refused", says: "two branches", hint: "--timeline 1 or --timeline 2"},
		"an unknown backup":            {call: a.at(a.repo, "--backup", "20200101T000000Z-full-000000"), exit: 5, code: "Refused", says: "no such backup", hint: "lifeboat backups"},
		"another plan than approved":   {call: a.at(a.repo, "--plan-hash", strings.Repeat("0", 64)), exit: 5, code: "Refused", says: "hash", hint: "--plan"},
		"a time without a zone":        {call: a.at(a.repo, "--to", "2026-11-23 07:45:00"), exit: 2, code: "Usage", says: "has no zone", hint: "restore --help"},
		"two targets":                  {call: a.at(a.repo, "--to", a.within, "--to-immediate"), exit: 2, code: "Usage", says: "several targets"},
		"no position":                  {call: a.at(a.repo, "--to-lsn", "12"), exit: 2, code: "Usage", says: "--to-lsn"},
		"a timeline that is no number": {call: a.at(a.repo, "--timeline", "latest"), exit: 2, code: "Usage", says: "--timeline"},
	}
}

// refusedServers are servers that are not the cluster's, and hosts that cannot start one.
func (a *archives) refusedServers(t *testing.T) map[string]refusal {
	segment := filepath.Join(a.foreign.DataDir, "pg_wal", a.foreign.SQL(t, "select pg_walfile_name(pg_switch_wal())"))
	push := func(args ...string) call {
		return call{program: a.program, args: append([]string{"--repository", "file://" + a.repo, "wal-push", "--cluster", "orders"}, args...)}
	}
	renamed := filepath.Join(a.dir, "0000000100000000000000EE")
	copyTree(t, segment, renamed)
	if err := pgtest.Owner(t).Chown(renamed); err != nil {
		t.Fatal(err)
	}
	out := map[string]refusal{
		"backup of another server":   {call: a.with(t, a.configuration(a.foreign.DSN("")), "backup", "orders", "--local"), exit: 5, code: "Refused", says: "system identifier", hint: "cluster name of its own"},
		"WAL of another server":      {call: push(segment), exit: 5, code: "Refused", says: "system identifier", hint: "cluster name of its own"},
		"a segment that was renamed": {call: push(renamed), exit: 1, code: "Failed", says: "was the file renamed"},
	}
	for name, args := range map[string][]string{
		"a restore without the backup's version": {"restore", "orders", "--target-dir", filepath.Join(a.dir, "target"), "--local", "--start"},
	} {
		c := a.with(t, a.configuration(a.DSN("")), args...)
		if !c.hide(t, a.Bin.Dir) {
			continue
		}
		out[name] = refusal{call: c, exit: 2, code: "Configuration", says: fmt.Sprintf("PostgreSQL %d", a.Bin.Major), hint: "postgres_bin"}
	}
	return out
}

// hide runs the program where a directory is empty, as on a host that has other versions only. It needs root.
func (c *call) hide(t *testing.T, dir string) bool {
	t.Helper()
	if os.Getuid() != 0 {
		t.Logf("NOT TESTED: a host without the backup's version of PostgreSQL, which takes a mount namespace and so root")
		return false
	}
	owner := pgtest.Owner(t)
	c.prefix = []string{
		"unshare", "--mount", "sh", "-c", "mount -t tmpfs none " + dir + ` && exec setpriv --reuid "$0" --regid "$0" --init-groups "$@"`, owner.Name,
	}
	c.as = rootAttr
	return true
}

// refusedRepositories are places that hold no repository, or one that is not understood.
func (a *archives) refusedRepositories(t *testing.T) map[string]refusal {
	empty, newer := filepath.Join(a.dir, "empty"), a.repo+"-newer"
	mkdir(t, a.dir, "empty")
	copyTree(t, a.repo, newer)
	header := filepath.Join(newer, "lifeboat.json")
	data, err := os.ReadFile(header)
	if err == nil {
		// What a newer version wrote matches no check of ours, else it would be taken for a number that rotted.
		text := strings.Replace(string(data), `"format": 1`, `"format": 99`, 1)
		err = os.WriteFile(header, []byte(strings.Replace(text, `"check": "`, `"check": "99`, 1)), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]refusal{}
	for verb, args := range map[string][]string{
		"restore": {"restore", "orders", "--target-dir", filepath.Join(a.dir, "target"), "--local"}, "backups": {"backups", "orders"},
		"verify": {"verify", "orders", "--local"}, "wal-status": {"wal-status", "orders"},
	} {
		from := func(folder string) call {
			return call{program: a.program, args: append([]string{"--repository", "file://" + folder}, args...)}
		}
		out[verb+" without a repository"] = refusal{call: from(filepath.Join(a.dir, "none")), exit: 2, code: "Configuration", says: "missing", hint: "mount"}
		out[verb+" from an empty folder"] = refusal{call: from(empty), exit: 2, code: "Configuration", says: "empty", hint: "mount"}
		out[verb+" from another format"] = refusal{call: from(newer), exit: 2, code: "Configuration", says: "says format 99", hint: "newer", still: []string{newer}}
		unknown := from(a.repo)
		unknown.args[3] = "strangers"
		out[verb+" of an unknown cluster"] = refusal{call: unknown, exit: 2, code: "Configuration", says: "strangers", hint: "orders"}
	}
	push := call{program: a.program, args: []string{"--repository", "file://" + empty, "wal-push", "--cluster", "orders", a.DataDir + "/pg_wal/000000010000000000000001"}}
	out["wal-push to an empty folder"] = refusal{call: push, exit: 2, code: "Configuration", says: "empty", hint: "first backup"}
	return out
}

// refusedUsage are command lines and configurations that cannot be meant.
func (a *archives) refusedUsage(t *testing.T) map[string]refusal {
	good := a.configuration(a.DSN(""))
	typed := func(args ...string) call { return a.with(t, good, args...) }
	written := func(text string) call { return a.with(t, text, "backup", "orders", "--local") }
	noTemporal := typed("backup", "orders")
	noTemporal.env = append(noTemporal.env, "TEMPORAL_ADDRESS=127.0.0.1:1")
	return map[string]refusal{
		"an unknown cluster":         {call: typed("backup", "order", "--local"), exit: 2, code: "Configuration", says: `did you mean "orders"?`, hint: "lifeboat.yaml"},
		"an unknown flag":            {call: typed("backup", "orders", "--locl"), exit: 2, code: "Usage", says: "did you mean --local?", hint: "lifeboat backup --help"},
		"an unknown command":         {call: typed("bakcup", "orders"), exit: 2, code: "Usage", says: "did you mean backup", hint: "lifeboat --help"},
		"an unknown key":             {call: written(good + "alarms: []\n"), exit: 2, code: "Configuration", says: "lifeboat.yaml:4:1: ", hint: "lifeboat init"},
		"a key of a cluster":         {call: written(strings.Replace(good, "dsn:", "dns:", 1)), exit: 2, code: "Configuration", says: "lifeboat.yaml:3:"},
		"a wrong type":               {call: written(good + "worker: {postgres_bin: 7}\n"), exit: 2, code: "Configuration", says: "worker.postgres_bin"},
		"a wrong duration":           {call: written(strings.Replace(good, "{dsn:", "{objectives: {rto: soon}, dsn:", 1)), exit: 2, code: "Configuration", says: "objectives.rto"},
		"a wrong dsn":                {call: written(a.configuration("host=x port=many")), exit: 2, code: "Configuration", says: "dsn"},
		"another version":            {call: written(strings.Replace(good, "version: 1", "version: 2", 1)), exit: 2, code: "Configuration", says: "version"},
		"a port that is no number":   {call: typed("restore", "orders", "--target-dir", "/x", "--start", "--port", "many"), exit: 2, code: "Usage", says: "--port"},
		"a level that there is not":  {call: typed("verify", "orders", "--level", "9", "--local"), exit: 2, code: "Usage", says: "level"},
		"a type that there is not":   {call: typed("backup", "orders", "--type", "partial", "--local"), exit: 2, code: "Usage", says: "partial"},
		"an action that there isn't": {call: typed("restore", "orders", "--target-dir", "/x", "--action", "hope", "--local"), exit: 2, code: "Usage", says: "hope"},
		"no configuration":           {call: call{program: a.program, args: []string{"backup", "orders", "--local"}}, exit: 2, code: "Configuration", says: "no configuration found", hint: "lifeboat init"},
		"Temporal out of reach":      {call: noTemporal, exit: 1, code: "TemporalUnavailable", says: "127.0.0.1:1", hint: "--local"},
	}
}
