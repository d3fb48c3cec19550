package main

import (
	"bytes"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/dynamicconfig"
)

func startDev(args ...string) []string {
	return append([]string{"server", "start-dev"}, args...)
}

func TestParseCommandVerbs(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want verb
	}{
		{[]string{"--version"}, verbVersion},
		{[]string{"-v"}, verbVersion},
		{[]string{"--help"}, verbHelp},
		{startDev("--help"), verbHelp},
		{startDev(), verbStart},
	} {
		if got, err := parseCommand(tc.args); err != nil || got.verb != tc.want {
			t.Errorf("%q: verb %v, %v; want %v", tc.args, got.verb, err, tc.want)
		}
	}
}

func TestParseCommandErrors(t *testing.T) {
	for _, tc := range []struct {
		args []string
		text string // what the error must name
	}{
		{nil, "start-dev"},
		{[]string{"workflow", "list"}, "workflow list"},
		{[]string{"server"}, "start-dev"},
		{startDev("--bogus"), "-bogus"},
		{startDev("--headless", "false"), "false"},
		{startDev("--port", "many"), "port"},
		{startDev("--port", "65536"), "65536"},
		{startDev("--ui-port", "-1"), "--ui-port"},
		{startDev("--ip", "db.example.com"), "db.example.com"},
		{startDev("--ip", "fe80::1%eth0"), "--ip"},
		{startDev("--ui-ip", "x"), "--ui-ip"},
		{startDev("--namespace", ""), "name"},
		{startDev("--search-attribute", "A"), "Name=Type"},
		{startDev("--search-attribute", "=Keyword"), "Name=Type"},
		{startDev("--search-attribute", "A=Unspecified"), "Unspecified"},
		{startDev("--search-attribute", "A=Number"), "Keyword"},
		{startDev("--search-attribute", "WorkflowId=Keyword"), "WorkflowId"},
		{startDev("--search-attribute", "A=Keyword", "--search-attribute", "A=Int"), "Int"},
		{startDev("--dynamic-config-value", "key"), "key=json"},
		{startDev("--dynamic-config-value", "key=word"), "quotes"},
		{startDev("--dynamic-config-value", "key=1 2"), "more than one"},
		{startDev("--sqlite-pragma", "locking_mode=exclusive"), "locking_mode"},
		{startDev("--sqlite-pragma", "synchronous"), "name=value"},
		{startDev("--log-level", "loud"), "loud"},
		{startDev("--log-format", "xml"), "xml"},
	} {
		_, err := parseCommand(tc.args)
		if err == nil {
			t.Errorf("%q is accepted", tc.args)
		} else if !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%q: error %q does not name %q", tc.args, err, tc.text)
		}
	}
}

func TestParseDefaults(t *testing.T) {
	c, err := parseCommand(startDev())
	if err != nil {
		t.Fatal(err)
	}
	want := options{
		ip: "127.0.0.1", port: 7233, uiIP: "127.0.0.1", logLevel: "error", logFormat: "text",
		namespaces: []string{"default"}, pragmas: map[string]string{},
		searchAttributes: map[string]enumspb.IndexedValueType{}, dynamicConfig: dynamicconfig.StaticClient{},
	}
	if !reflect.DeepEqual(c.options, want) {
		t.Errorf("options %+v, want %+v", c.options, want)
	}
}

// TestParseSDK parses what testsuite.StartDevServer of the Go SDK passes.
func TestParseSDK(t *testing.T) {
	c, err := parseCommand(startDev(
		"--ip", "localhost", "--port", "41234", "--namespace", "drills",
		"--dynamic-config-value", "frontend.enableServerVersionCheck=false",
		"--log-level", "warn", "--log-format", "pretty", "--headless",
		"--db-filename", "/tmp/dev.db", "--ui-port", "0", "--search-attribute", "LifeboatCluster=Keyword",
		"--search-attribute", "LifeboatTags=KeywordList"))
	if err != nil {
		t.Fatal(err)
	}
	o := c.options
	if o.ip != "127.0.0.1" || o.port != 41234 || !o.headless || o.dbFile != "/tmp/dev.db" || !o.uiPortSet || o.logLevel != "warn" {
		t.Errorf("options %+v", o)
	}
	if want := []string{"default", "drills"}; !slices.Equal(o.namespaces, want) {
		t.Errorf("namespaces %q, want %q", o.namespaces, want)
	}
	wantTypes := map[string]enumspb.IndexedValueType{
		"LifeboatCluster": enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"LifeboatTags":    enumspb.INDEXED_VALUE_TYPE_KEYWORD_LIST,
	}
	if !maps.Equal(o.searchAttributes, wantTypes) {
		t.Errorf("search attributes %v, want %v", o.searchAttributes, wantTypes)
	}
	if got := o.dynamicConfig[dynamicconfig.EnableServerVersionCheck.Key()]; got != false {
		t.Errorf("dynamic configuration holds %v", o.dynamicConfig)
	}
}

func TestDynamicConfigTypes(t *testing.T) {
	for _, tc := range []struct {
		json string
		want any
	}{
		{`1200`, 1200},
		{`0.5`, 0.5},
		{`true`, true},
		{`"10s"`, "10s"},
		{`{"a":[1,2.5]}`, map[string]any{"a": []any{1, 2.5}}},
	} {
		c, err := parseCommand(startDev("--dynamic-config-value", "Some.Key="+tc.json))
		if err != nil {
			t.Errorf("%s: %v", tc.json, err)
			continue
		}
		if got := dynamicConfig(&c.options)[dynamicconfig.MakeKey("some.key")]; !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s becomes %#v, want %#v", tc.json, got, tc.want)
		}
	}
}

func TestDynamicConfigOverOurs(t *testing.T) {
	c, err := parseCommand(startDev("--dynamic-config-value", "history.hostLevelCacheMaxSize=7"))
	if err != nil {
		t.Fatal(err)
	}
	values := dynamicConfig(&c.options)
	if got := values[dynamicconfig.HistoryCacheHostLevelMaxSize.Key()]; got != 7 {
		t.Errorf("the command line gives 7, the server gets %v", got)
	}
	if got := values[dynamicconfig.EnableServerVersionCheck.Key()]; got != false {
		t.Errorf("version check is %v, want false", got)
	}
}

func TestRunExitCodes(t *testing.T) {
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--version"}, 0, "(Server ", ""},
		{[]string{"--help"}, 0, "--db-filename", ""},
		{startDev("--bogus"), 2, "", "devserver: server start-dev: flag provided but not defined: -bogus"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), tc.args, &stdout, &stderr); code != tc.code {
			t.Errorf("%q: exit code %d, want %d", tc.args, code, tc.code)
		}
		// The flag package writes -flag; both forms are taken.
		out := strings.ReplaceAll(stdout.String(), "  -", "  --")
		if !strings.Contains(out, tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%q: stdout %q, stderr %q", tc.args, out, stderr.String())
		}
	}
}
