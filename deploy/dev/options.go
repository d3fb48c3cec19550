package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/searchattribute/sadefs"
)

// verb is what the command line asks for.
type verb int

const (
	verbHelp verb = iota
	verbVersion
	verbStart
)

// command is a parsed command line. options is set for verbStart only.
type command struct {
	verb    verb
	options options
}

// options are the flags of "server start-dev", checked.
type options struct {
	ip          string // literal address of the frontend, its HTTP API and its metrics
	port        int    // 0: any free port
	httpPort    int    // 0: any free port
	metricsPort int    // 0: no metrics

	headless        bool
	uiIP            string // literal address; never empty
	uiPort          int    // 0: see uiPortSet
	uiPortSet       bool   // false: port+1000 if that is free, else any free port
	uiPublicPath    string
	uiAssetPath     string
	uiCodecEndpoint string

	dbFile     string // empty: in memory
	pragmas    map[string]string
	namespaces []string // always holds "default"

	searchAttributes map[string]enumspb.IndexedValueType
	dynamicConfig    dynamicconfig.StaticClient

	logLevel  string
	logFormat string
	logConfig bool
}

const defaultNamespace = "default"

// The settings of SQLite that may be changed, as in the Temporal command line
// tool; anything else could break what the server assumes of its store.
var allowedPragmas = []string{"journal_mode", "synchronous"}

var (
	logLevels  = []string{"debug", "info", "warn", "error", "never"}
	logFormats = []string{"text", "json", "pretty"}
)

func parseCommand(args []string) (command, error) {
	switch {
	case len(args) == 0:
		return command{}, errors.New("no command; the only one is \"server start-dev\" (see --help)")
	case slices.Contains([]string{"--version", "-version", "-v", "version"}, args[0]):
		return command{verb: verbVersion}, nil
	case slices.Contains([]string{"--help", "-help", "-h", "help"}, args[0]):
		return command{verb: verbHelp}, nil
	case len(args) >= 2 && args[0] == "server" && args[1] == "start-dev":
		return parseStart(args[2:])
	}
	return command{}, fmt.Errorf("unknown command %q; the only one is \"server start-dev\" (see --help)", strings.Join(args[:min(2, len(args))], " "))
}

func parseStart(args []string) (command, error) {
	o := options{}
	fs := flagSet(&o)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return command{verb: verbHelp}, nil
		}
		return command{}, fmt.Errorf("server start-dev: %w (see --help)", err)
	}
	if fs.NArg() > 0 {
		return command{}, fmt.Errorf("server start-dev: unexpected argument %q (see --help)", fs.Arg(0))
	}
	fs.Visit(func(f *flag.Flag) {
		if f.Name == "ui-port" {
			o.uiPortSet = true
		}
	})
	if err := o.check(); err != nil {
		return command{}, fmt.Errorf("server start-dev: %w", err)
	}
	return command{verb: verbStart, options: o}, nil
}

// flagSet defines the flags; parsing fills o.
func flagSet(o *options) *flag.FlagSet {
	fs := flag.NewFlagSet("server start-dev", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // errors are returned, and printed once
	o.namespaces = []string{defaultNamespace}
	o.searchAttributes = map[string]enumspb.IndexedValueType{}
	o.pragmas = map[string]string{}
	o.dynamicConfig = dynamicconfig.StaticClient{}

	fs.StringVar(&o.ip, "ip", "127.0.0.1", "`address` that the frontend listens on; localhost means 127.0.0.1")
	aliased(fs, fs.IntVar, &o.port, []string{"port", "p"}, 7233, "`port` of the frontend (gRPC); 0: any free port")
	fs.IntVar(&o.httpPort, "http-port", 0, "`port` of the frontend's HTTP API; 0: any free port")
	fs.IntVar(&o.metricsPort, "metrics-port", 0, "`port` for Prometheus metrics at /metrics; 0: none")
	fs.BoolVar(&o.headless, "headless", false, "no web UI")
	fs.StringVar(&o.uiIP, "ui-ip", "", "`address` that the web UI listens on; as --ip if not given")
	fs.IntVar(&o.uiPort, "ui-port", 0, "`port` of the web UI; if not given, --port plus 1000 or, where that is taken, any free port")
	fs.StringVar(&o.uiPublicPath, "ui-public-path", "", "`path` below which the web UI is served")
	fs.StringVar(&o.uiAssetPath, "ui-asset-path", "", "`folder` of the web UI's files, instead of those that are built in")
	fs.StringVar(&o.uiCodecEndpoint, "ui-codec-endpoint", "", "`URL` of a codec server for the web UI")
	aliased(fs, fs.StringVar, &o.dbFile, []string{"db-filename", "f"}, "", "SQLite `file` that keeps the state; if not given, it is kept in memory")
	fs.StringVar(&o.logLevel, "log-level", "error", "one of "+strings.Join(logLevels, ", "))
	fs.StringVar(&o.logFormat, "log-format", "text", "one of "+strings.Join(logFormats, ", "))
	fs.BoolVar(&o.logConfig, "log-config", false, "print the server's configuration to standard error")

	ns := func(s string) error { return o.addNamespace(s) }
	fs.Func("namespace", "`name` of a namespace to create, besides default (repeatable)", ns)
	fs.Func("n", "same as --namespace", ns)
	fs.Func("search-attribute", "`Name=Type` of a search attribute to register (repeatable); types: "+strings.Join(attributeTypes(), ", "), o.addSearchAttribute)
	fs.Func("dynamic-config-value", "`key=json` of a dynamic configuration value (repeatable)", o.addDynamicConfig)
	fs.Func("sqlite-pragma", "`name=value` of an SQLite setting (repeatable); names: "+strings.Join(allowedPragmas, ", "), o.addPragma)
	return fs
}

// aliased defines one flag under several names, the first one with the help.
func aliased[T any](fs *flag.FlagSet, define func(*T, string, T, string), p *T, names []string, value T, help string) {
	define(p, names[0], value, help)
	for _, name := range names[1:] {
		define(p, name, value, "same as --"+names[0])
	}
}

func usage() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\nTemporal server and web UI in one process, for development and tests.\n\n", versionLine())
	fmt.Fprint(&b, "  devserver server start-dev [flags]\n  devserver --version\n\nFlags:\n")
	fs := flagSet(&options{})
	fs.SetOutput(&b)
	fs.PrintDefaults()
	return b.String()
}

func (o *options) addNamespace(name string) error {
	if name == "" {
		return errors.New("a namespace needs a name")
	}
	if !slices.Contains(o.namespaces, name) {
		o.namespaces = append(o.namespaces, name)
	}
	return nil
}

func (o *options) addSearchAttribute(s string) error {
	name, typeName, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return errors.New("want Name=Type")
	}
	if sadefs.IsReserved(name) {
		return fmt.Errorf("the name %q belongs to Temporal", name)
	}
	t, err := enumspb.IndexedValueTypeFromString(typeName)
	if err != nil || t == enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED {
		return fmt.Errorf("unknown type %q; known: %s", typeName, strings.Join(attributeTypes(), ", "))
	}
	if old, ok := o.searchAttributes[name]; ok && old != t {
		return fmt.Errorf("%q is given as %v and as %v", name, old, t)
	}
	o.searchAttributes[name] = t
	return nil
}

// attributeTypes are the names of the types of search attributes, sorted.
func attributeTypes() []string {
	var names []string
	for i := range enumspb.IndexedValueType_name {
		if t := enumspb.IndexedValueType(i); t != enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED {
			names = append(names, t.String())
		}
	}
	slices.Sort(names)
	return names
}

func (o *options) addDynamicConfig(s string) error {
	key, raw, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return errors.New("want key=json")
	}
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return fmt.Errorf("value of %s is not JSON (a string needs its quotes): %w", key, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("value of %s is more than one JSON value", key)
	}
	o.dynamicConfig[dynamicconfig.MakeKey(key)] = wholeNumbers(value)
	return nil
}

// wholeNumbers gives each number the type that it would have in the server's
// own YAML files: int where it is whole, else float64. The server does not take
// a float64 where it wants an int.
func wholeNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.Atoi(v.String()); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return f
	case []any:
		for i := range v {
			v[i] = wholeNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = wholeNumbers(v[k])
		}
	}
	return v
}

func (o *options) addPragma(s string) error {
	name, value, ok := strings.Cut(s, "=")
	name = strings.ToLower(name)
	if !ok || value == "" {
		return errors.New("want name=value")
	}
	if !slices.Contains(allowedPragmas, name) {
		return fmt.Errorf("unknown setting %q; known: %s", name, strings.Join(allowedPragmas, ", "))
	}
	o.pragmas[name] = value
	return nil
}

// check refuses values that cannot work and fills in what depends on others.
func (o *options) check() error {
	var err error
	if o.ip, err = literalIP(o.ip); err != nil {
		return fmt.Errorf("--ip: %w", err)
	}
	if o.uiIP == "" {
		o.uiIP = o.ip
	}
	if o.uiIP, err = literalIP(o.uiIP); err != nil {
		return fmt.Errorf("--ui-ip: %w", err)
	}
	for name, port := range map[string]int{"port": o.port, "http-port": o.httpPort, "metrics-port": o.metricsPort, "ui-port": o.uiPort} {
		if port < 0 || port > 65535 {
			return fmt.Errorf("--%s: %d is not a port", name, port)
		}
	}
	if !slices.Contains(logLevels, o.logLevel) {
		return fmt.Errorf("--log-level: unknown level %q; known: %s", o.logLevel, strings.Join(logLevels, ", "))
	}
	if !slices.Contains(logFormats, o.logFormat) {
		return fmt.Errorf("--log-format: unknown format %q; known: %s", o.logFormat, strings.Join(logFormats, ", "))
	}
	return nil
}

// literalIP takes an address as the server wants it. Names are not looked up,
// except that localhost always means 127.0.0.1: which addresses a name has may
// change, and then so would the ones that are listened on.
func literalIP(s string) (string, error) {
	if strings.EqualFold(s, "localhost") {
		return "127.0.0.1", nil
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Zone() != "" {
		return "", fmt.Errorf("%q is not an IP address (or localhost)", s)
	}
	return ip.String(), nil
}
