package recovery_test

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// fingerprint is what a cluster holds, by name: a digest of every table's rows, sequences, large objects, and the
// catalogue as pg_dumpall prints it. Two clusters of equal content have equal fingerprints.
type fingerprint map[string]string

// place is how to reach a server: by its socket.
type place struct {
	dir, user string
	port      int
	bin       string // pg_dumpall
}

func (p place) connect(t *testing.T, db string) *dbcore.Conn {
	t.Helper()
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	cfg, err := dbcore.ParseDSN(fmt.Sprintf("host=%s port=%d user='%s' dbname='%s'", p.dir, p.port, quote.Replace(p.user), quote.Replace(db)))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// pair is a name and a value of it.
type pair struct{ Name, Value string }

// The queries of a fingerprint: of the whole cluster, and of each database.
const (
	clusterFacts = `
		select 'database ' || datname as name, concat_ws(' ', pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider,
		       datistemplate, datallowconn, datconnlimit, datdba::regrole, dattablespace) as value from pg_database
		union all select 'prepared ' || gid, concat_ws(' ', transaction, owner, database) from pg_prepared_xacts
		union all select 'role ' || rolname, concat_ws(' ', oid, rolsuper, rolcanlogin, rolpassword) from pg_authid
		union all select 'control ' || 'system', system_identifier::text from pg_control_system()
		union all select 'control ' || 'checksums', current_setting('data_checksums')
		union all select 'control ' || 'segment', current_setting('wal_segment_size')`
	tables = `
		select format('table %s.%s', n.nspname, c.relname) as name, format('%I.%I', n.nspname, c.relname) as value
		from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where c.relkind in ('r', 'm') and c.relpersistence = 'p' and n.nspname !~ '^(pg_|information_schema)'`
	// A sequence writes WAL for 32 values ahead (SEQ_LOG_VALS, sequence.c), and replay goes to the last of them. So that is
	// what is compared. The value is a query.
	sequences = `
		select format('sequence %s.%s', n.nspname, c.relname) as name,
		       format('select concat_ws('' '', last_value + log_cnt * %s, is_called, %L, %L) from %I.%I', s.seqincrement, s.seqcycle, s.seqtypid::regtype, n.nspname, c.relname) as value
		from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace where c.relpersistence = 'p'`
	databaseFacts = `
		select 'large object ' || oid as name, md5(lo_get(oid)) as value from pg_largeobject_metadata
		union all select 'large object ' || oid || ' acl', concat_ws(' ', lomowner::regrole, lomacl::text) from pg_largeobject_metadata`
)

// volatileLine matches what pg_dumpall prints otherwise each time, or by the place: its own password against injection,
// and where tablespaces lie.
var volatileLine = regexp.MustCompile(`(?m)^(\\(un)?restrict .*|CREATE TABLESPACE .*|-- Started on .*|-- Completed on .*)\n`)

// look takes a server's fingerprint.
func (p place) look(t *testing.T) fingerprint {
	t.Helper()
	out := fingerprint{}
	add := func(prefix string, list []pair) {
		for _, x := range list {
			out[prefix+x.Name] = x.Value
		}
	}
	collect := func(conn *dbcore.Conn, sql string) []pair {
		list, err := dbcore.Collect[pair](t.Context(), conn, sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return list
	}
	main := p.connect(t, "postgres")
	defer main.Close()
	add("", collect(main, clusterFacts))
	names, err := dbcore.Collect[string](t.Context(), main, "select datname from pg_database where datallowconn order by 1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		func() {
			conn := p.connect(t, name)
			defer conn.Close()
			add(name+": ", collect(conn, databaseFacts))
			for _, table := range collect(conn, tables) {
				digest, err := dbcore.One[string](t.Context(), conn, "select count(*) || ' rows ' || coalesce(md5(string_agg(h, '' order by h collate \"C\")), '') "+
					"from (select md5(x::text) as h from "+table.Value+" x) as hashes")
				if err != nil {
					t.Fatalf("%s: %v", table.Name, err)
				}
				out[name+": "+table.Name] = digest
			}
			for _, seq := range collect(conn, sequences) {
				if out[name+": "+seq.Name], err = dbcore.One[string](t.Context(), conn, seq.Value); err != nil {
					t.Fatalf("%s: %v", seq.Name, err)
				}
			}
		}()
	}
	out["pg_dumpall"] = p.dump(t)
	return out
}

// dump is the whole schema.
func (p place) dump(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), p.bin, "-s", "-h", p.dir, "-p", fmt.Sprint(p.port), "-U", p.user)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	var errText strings.Builder
	cmd.Stderr = &errText
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("pg_dumpall: %v: %s", err, errText.String())
	}
	return volatileLine.ReplaceAllString(string(text), "")
}

// equal compares two fingerprints, and demands at least so many names in them.
func (want fingerprint) equal(t *testing.T, got fingerprint, least int) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch v, ok := got[name]; {
		case !ok:
			t.Errorf("%s is gone; it was %.200s", name, want[name])
		case v != want[name]:
			t.Errorf("%s differs: %s", name, firstDifference(want[name], v))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s was not there before: %.200s", name, got[name])
		}
	}
	if len(want) < least {
		t.Errorf("only %d names were compared, want %d: %v", len(want), least, slices.Sorted(maps.Keys(want)))
	}
}

func firstDifference(want, got string) string {
	i := 0
	for i < len(want) && i < len(got) && want[i] == got[i] {
		i++
	}
	from := max(0, i-60)
	return fmt.Sprintf("at %d %q, it was %q", i, got[from:min(len(got), i+100)], want[from:min(len(want), i+100)])
}
