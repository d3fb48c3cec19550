package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"
)

// EnvFile is the environment variable that names the configuration file.
const EnvFile = "LIFEBOAT_CONFIG"

// ErrNotFound is returned by Load if no file was named and none is in a usual place.
var ErrNotFound = errors.New("no configuration found")

// SearchPaths returns the usual places of the configuration, in the order in which Load looks at them.
func SearchPaths() []string { return []string{"./lifeboat.yaml", "/etc/lifeboat/lifeboat.yaml"} }

// LoadOptions tell Load where to look.
type LoadOptions struct {
	// Path is the value of --config; empty: not given.
	Path string
	// Env looks up environment variables, for LIFEBOAT_CONFIG and ${NAME}: os.LookupEnv in a program. Nil: none is set.
	Env func(name string) (value string, found bool)
	// SearchPaths replaces the usual places; nil: SearchPaths().
	SearchPaths []string
}

// Load reads the configuration from the first of: Path, the file that LIFEBOAT_CONFIG names, the search paths. A file that
// was named must be there; of the search paths only such as do not exist are passed over, so that an unreadable file
// never makes another one count. The error wraps ErrNotFound if there is no file, and is an *Error if its content is
// refused.
func Load(o LoadOptions) (*Config, error) {
	path := o.Path
	if path == "" && o.Env != nil {
		path, _ = o.Env(EnvFile)
	}
	if path != "" {
		return loadFile(path, o.Env)
	}
	search := o.SearchPaths
	if search == nil {
		search = SearchPaths()
	}
	for _, candidate := range search {
		c, err := loadFile(candidate, o.Env)
		if !errors.Is(err, fs.ErrNotExist) {
			return c, err
		}
	}
	return nil, fmt.Errorf("%w in %s: write one with `lifeboat init`, or name it by --config or %s",
		ErrNotFound, strings.Join(search, ", "), EnvFile)
}

func loadFile(path string, env lookup) (_ *Config, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration %s: %w", path, err)
	}
	return Parse(data, path, env)
}

// Parse reads a configuration. path is for messages only. env looks up the variables of ${NAME}; nil: none is set. The
// error is an *Error with everything that is wrong.
func Parse(data []byte, path string, env func(name string) (value string, found bool)) (*Config, error) {
	if len(data) > maxBytes {
		return nil, newError(path, []Problem{{Text: fmt.Sprintf("is larger than %d bytes", maxBytes)}})
	}
	if !utf8.Valid(data) {
		return nil, newError(path, []Problem{{
			Line: 1 + bytes.Count(data[:validPrefix(data)], []byte("\n")), Column: 1,
			Text: "is not UTF-8 text",
		}})
	}
	root, problem := parseYAML(data)
	if problem != nil {
		return nil, newError(path, []Problem{*problem})
	}
	c := Default()
	c.Version, c.file, c.marks = 0, path, map[string]mark{}
	if absent(root) {
		return nil, newError(path, []Problem{{Line: 1, Column: 1, Text: "is empty: write one with `lifeboat init`"}})
	}
	d := &decoder{env: env, marks: c.marks, failed: map[string]bool{}}
	d.value(root, "", reflect.ValueOf(c).Elem())
	if !d.failed[""] {
		c.adoptOnlyRepository()
		d.problems = append(d.problems, c.validate(d.failed)...)
	}
	if err := newError(path, d.problems); err != nil {
		return nil, err
	}
	return c, nil
}

// validPrefix is the number of bytes before the first that is not UTF-8.
func validPrefix(data []byte) int {
	n := 0
	for n < len(data) {
		r, size := utf8.DecodeRune(data[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}
