package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func parseFile(t *testing.T, path string) *Config {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(data))
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse([]byte(text), "lifeboat.yaml", testEnv)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return c
}

func refusal(t *testing.T, text string) string {
	t.Helper()
	_, err := Parse([]byte(text), "lifeboat.yaml", testEnv)
	if err == nil {
		t.Fatalf("Parse accepted:\n%s", text)
	}
	return err.Error()
}

const smallest = "version: 1\nrepositories:\n  main: {url: file:///var/lib/lifeboat}\nclusters:\n  orders: {dsn: host=db1}\n"

func TestParse_SmallestFile_GetsDefaults(t *testing.T) {
	c := parse(t, smallest)
	cluster, err := c.Cluster("orders")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultCluster()
	want.DSN, want.Repository = NewDSN("host=db1"), "main"
	if !reflect.DeepEqual(cluster, want) {
		t.Errorf("cluster is %+v, want %+v", cluster, want)
	}
	if want.Objectives != (Objectives{RTO: time.Hour, RPO: 15 * time.Minute}) || want.Retention != (Retention{30, 2}) ||
		want.WAL.Mode != "archive" {
		t.Errorf("defaults are %+v", want)
	}
	repository, err := c.Repository("main")
	if err != nil || repository.Compression != "zstd" {
		t.Errorf("repository is %+v: %v", repository, err)
	}
	if c.Worker.TaskQueue != "lifeboat" || c.Worker.WorkDir != "" || len(c.Worker.PostgresBin) != 0 {
		t.Errorf("worker is %+v", c.Worker)
	}
	if got := c.NotYet(); len(got) != 0 {
		t.Errorf("NotYet of a file that sets nothing of the kind: %q", got)
	}
	if c.File() != "lifeboat.yaml" {
		t.Errorf("File is %q", c.File())
	}
}

// The file as it was designed: what this version lacks is refused by name, and the rest is taken.
func TestParse_DesignedFile(t *testing.T) {
	c := parseFile(t, "testdata/valid/interface.yaml")
	cluster := c.Clusters["orders"]
	if cluster.Schedules.DrillDisaster != "0 6 1 1,4,7,10 *" || cluster.Schedules.Health != "1m" || cluster.Checks[0].Expect != "0" {
		t.Errorf("cluster is %+v", cluster)
	}
	want := []string{
		"clusters.orders.retention: this version deletes no backups, so that all are kept",
	}
	if got := c.NotYet(); !slices.Equal(got, want) {
		t.Errorf("NotYet is %q, want %q", got, want)
	}

	data, err := os.ReadFile("testdata/valid/interface.yaml")
	if err != nil {
		t.Fatal(err)
	}
	designed := strings.Replace(string(data), "url: file:///var/lib/lifeboat", "url: s3://backups/lifeboat?region=eu-central-1", 1)
	designed = strings.Replace(designed, "    compression:", "    encryption: {recipients: [age1abc], identity_file: /etc/lifeboat/key.txt}\n    compression:", 1)
	got := refusal(t, designed)
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "s3:// is not available") || !strings.Contains(got, "encryption is not available") {
		t.Errorf("refused for other reasons: %s", got)
	}
}

func TestParse_Everything(t *testing.T) {
	c := parseFile(t, "testdata/valid/everything.yaml")
	orders := c.Clusters["orders"]
	if want := "postgres://lifeboat:hunter2@db1,db2:5433/postgres?sslmode=verify-full&sslpassword=hunter2&application_name=lifeboat"; orders.DSN.Reveal() != want {
		t.Errorf("dsn is %s", orders.DSN.Reveal())
	}
	if orders.Objectives != (Objectives{RTO: 30 * time.Minute, RPO: 36 * time.Hour}) {
		t.Errorf("objectives are %+v", orders.Objectives)
	}
	if orders.Retention != (Retention{FullDays: 7, MinVerified: 2}) {
		t.Errorf("retention is %+v", orders.Retention)
	}
	if want := "select $1, $$text$$, '${PASSWORD}'\nfrom \"Orders\" # no comment\n"; orders.Checks[0].SQL != want {
		t.Errorf("sql is %q, want %q", orders.Checks[0].SQL, want)
	}
	if folder, err := FilePath(c.Repositories["spare"].URL); err != nil || folder != "/mnt/with space" {
		t.Errorf("folder of the repository is %q: %v", folder, err)
	}
	if len(c.Alerts) != 1 || c.Alerts[0].Line == 0 {
		t.Errorf("alerts are %+v", c.Alerts)
	}
	if got := c.NotYet(); len(got) != 2 || got[0] != "alerts: this version sends no alerts" {
		t.Errorf("NotYet is %q", got)
	}
	if !slices.Equal(c.ClusterNames(), []string{"bills", "orders"}) || !slices.Equal(c.RepositoryNames(), []string{"main", "spare"}) {
		t.Errorf("names are %v and %v", c.ClusterNames(), c.RepositoryNames())
	}
}

// A variable cannot add structure, and is not expanded again.
func TestParse_VariableWithYAML_StaysOneValue(t *testing.T) {
	c := parse(t, smallest[:len(smallest)-2]+`, checks: [{name: a, sql: "${INJECTION}", expect: "$${X} $ $$ ${DAYS}"}]}`)
	want, _ := testEnv("INJECTION")
	check := c.Clusters["orders"].Checks[0]
	if check.SQL != want || check.Expect != "${X} $ $$ 7" {
		t.Errorf("check is %+v", check)
	}
	if c.Repositories["main"].Encryption != nil || c.Version != 1 {
		t.Errorf("the variable changed the configuration: %+v", c)
	}
}

func TestParse_NumberInQuotes_IsNoNumber(t *testing.T) {
	text := "    retention: {full_days: \"30\"}\n"
	got := refusal(t, "version: 1\nrepositories: {main: {url: file:///a}}\nclusters:\n  a:\n    dsn: host=db1\n"+text)
	if !strings.Contains(got, "6:28: clusters.a.retention.full_days: must be a whole number, not a text") {
		t.Errorf("refused with %s", got)
	}
}

func TestParse_OversizedAndBinary_AreRefused(t *testing.T) {
	if got := refusal(t, "# "+strings.Repeat("x", maxBytes)); !strings.Contains(got, "is larger than 1048576 bytes") {
		t.Errorf("refused with %s", got)
	}
	if got := refusal(t, "version: 1\n# ü\n# \xff\n"); got != "lifeboat.yaml:3:1: is not UTF-8 text" {
		t.Errorf("refused with %s", got)
	}
}

func TestConfig_UnknownNames(t *testing.T) {
	c := parseFile(t, "testdata/valid/everything.yaml")
	for name, want := range map[string]string{
		"ordres":               `cluster "ordres" is not in the configuration: did you mean "orders"?`,
		"nothing-of-this-kind": `cluster "nothing-of-this-kind" is not in the configuration: lifeboat.yaml has bills, orders`,
	} {
		if _, err := c.Cluster(name); !errors.Is(err, ErrUnknownName) || err.Error() != want {
			t.Errorf("Cluster(%q): %v, want %s", name, err, want)
		}
	}
	_, err := Default().Repository("main")
	if want := `repository "main" is not in the configuration: the configuration names none`; !errors.Is(err, ErrUnknownName) || err.Error() != want {
		t.Errorf("Repository of an empty configuration: %v, want %s", err, want)
	}
}

func TestValidate_HandBuiltConfig(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Fatalf("the default is refused: %v", err)
	}
	c.Repositories = map[string]*Repository{"main": DefaultRepository("file:///a")}
	cluster := DefaultCluster()
	cluster.DSN, cluster.Repository = NewDSN("host=db1"), "main"
	c.Clusters = map[string]*Cluster{"orders": cluster}
	if err := c.Validate(); err != nil {
		t.Fatalf("a good configuration is refused: %v", err)
	}
	c.Repositories["main"].Encryption = &Encryption{}
	c.Repositories["gone"] = nil
	c.Clusters["gone"] = nil
	c.Clusters["Bad Name"] = cluster
	cluster.DSN, cluster.Checks = DSN{}, []Check{{}}
	var refused *Error
	if err := c.Validate(); !errors.As(err, &refused) {
		t.Fatalf("Validate: %v, want an *Error", err)
	}
	var paths []string
	for _, p := range refused.Problems {
		if p.Line != 0 {
			t.Errorf("a place for what was never written: %+v", p)
		}
		paths = append(paths, p.Path)
	}
	slices.Sort(paths)
	want := []string{
		"clusters.Bad Name", "clusters.Bad Name.checks[0].name", "clusters.Bad Name.checks[0].sql", "clusters.Bad Name.dsn",
		"clusters.gone", "clusters.orders.checks[0].name", "clusters.orders.checks[0].sql", "clusters.orders.dsn",
		"repositories.gone", "repositories.main.encryption",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("problems are at %q, want %q", paths, want)
	}
}

func TestSanitized_HasNoSecretsAndParsesAgain(t *testing.T) {
	for _, file := range []string{"interface", "everything"} {
		c := parseFile(t, "testdata/valid/"+file+".yaml")
		for _, name := range c.ClusterNames() {
			t.Run(file+"/"+name, func(t *testing.T) {
				got, err := c.Sanitized(name)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(got, []byte("hunt")) {
					t.Errorf("a secret shows in:\n%s", got)
				}
				golden(t, "testdata/valid/"+file+"."+name+".sanitized.yaml", string(got))
				assertSameCluster(t, c, parse(t, string(got)), name)
			})
		}
	}
	if _, err := Default().Sanitized("orders"); !errors.Is(err, ErrUnknownName) {
		t.Errorf("Sanitized of an unknown cluster: %v", err)
	}
}

// assertSameCluster compares the cluster and its repository in both, but for the passwords, which b must not have.
func assertSameCluster(t *testing.T, a, b *Config, name string) {
	t.Helper()
	want := *a.Clusters[name]
	want.DSN = want.DSN.WithoutPassword()
	want.Hosts = slices.Clone(want.Hosts)
	for i := range want.Hosts {
		want.Hosts[i].DSN = want.Hosts[i].DSN.WithoutPassword()
	}
	got := *b.Clusters[name]
	empty := func(c *Cluster) { // a list that is absent equals one that is empty
		if len(c.Hosts) == 0 {
			c.Hosts = nil
		}
		if len(c.Checks) == 0 {
			c.Checks = nil
		}
	}
	empty(&want)
	empty(&got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("cluster read back is %+v\nwant %+v", got, want)
	}
	if got, want := b.Repositories[want.Repository], a.Repositories[want.Repository]; !reflect.DeepEqual(got, want) {
		t.Errorf("repository read back is %+v, want %+v", got, want)
	}
}

func TestConfig_String_ParsesAgain(t *testing.T) {
	for _, text := range []string{Default().String(), parseFile(t, "testdata/valid/everything.yaml").String()} {
		again := parse(t, text)
		if again.String() != text {
			t.Errorf("String of what String wrote differs:\n%s\n%s", text, again)
		}
	}
}

// Secrets show in no way in which a configuration gets printed by accident.
func TestConfig_PrintedAnyWay_ShowsNoPassword(t *testing.T) {
	c := parseFile(t, "testdata/valid/everything.yaml")
	for i := range c.Clusters["orders"].Checks { // which are no connection strings, and hold the marker on purpose
		c.Clusters["orders"].Checks[i] = Check{}
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("c", "config", c, "cluster", c.Clusters["orders"], "dsn", c.Clusters["orders"].DSN)
	slog.New(slog.NewTextHandler(&log, nil)).Info("c", "config", c, "cluster", c.Clusters["orders"], "dsn", c.Clusters["orders"].DSN)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(asJSON), c.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, c), fmt.Sprintf(verb, *c.Clusters["orders"]), fmt.Sprintf(verb, c.Clusters["orders"].DSN),
			fmt.Sprintf(verb, c.Clusters["orders"].Hosts))
	}
	for _, s := range shown {
		if strings.Contains(s, "hunt") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("a secret shows in: %s", s)
		}
	}
	if !strings.Contains(string(asJSON), "postgres://lifeboat:[redacted]@db1,db2:5433/postgres") {
		t.Errorf("JSON shows too little: %s", asJSON)
	}
}

// The example parses as it stands, all that it sets is honoured, and it shows every key there is.
func TestExample(t *testing.T) {
	c := parse(t, Example())
	if got := c.NotYet(); len(got) != 0 || len(c.Clusters) != 1 {
		t.Errorf("NotYet is %q", got)
	}
	uncommented := regexp.MustCompile(`(?m)^(\s*)#(\S|  )`).ReplaceAllString(Example(), "$1$2")
	all := parse(t, uncommented)
	if len(all.Clusters["orders"].Hosts) != 1 || len(all.NotYet()) != 1 {
		t.Errorf("with everything uncommented: %+v, NotYet %q", all.Clusters["orders"], all.NotYet())
	}
	for path := range allKeys(reflect.TypeFor[Config]()) {
		if !strings.Contains(Example(), path+":") && path != "encryption" && path != "recipients" && path != "identity_file" {
			t.Errorf("the example does not show the key %s", path)
		}
	}
}

func allKeys(t reflect.Type) map[string]bool {
	keys := map[string]bool{}
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice:
		return allKeys(t.Elem())
	case reflect.Struct:
		for _, f := range fieldsOf(t) {
			keys[f.name] = true
			for key := range allKeys(t.Field(f.index).Type) {
				keys[key] = true
			}
		}
	}
	return keys
}
