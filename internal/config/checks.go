package config

import (
	"fmt"
	"os"
	"reflect"
)

// checksFile is what ReadChecks reads: a configuration's list of checks, alone.
type checksFile struct {
	Checks []Check `yaml:"checks,required"`
}

// ReadChecks reads a file of SQL checks: the key `checks` with a list, written as under a cluster of the configuration. The
// error wraps os.ErrNotExist if there is no such file, and is an *Error if its content is refused.
func ReadChecks(path string, env func(name string) (value string, found bool)) ([]Check, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read checks: %w", err)
	}
	if info.Size() > maxBytes {
		return nil, newError(path, []Problem{{Text: fmt.Sprintf("is larger than %d bytes", maxBytes)}})
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read checks: %w", err)
	}
	root, problem := parseYAML(data)
	if problem != nil {
		return nil, newError(path, []Problem{*problem})
	}
	var out checksFile
	d := &decoder{env: env, marks: map[string]mark{}, failed: map[string]bool{}}
	d.value(root, "", reflect.ValueOf(&out).Elem())
	v := &validator{config: &Config{marks: d.marks}, failed: d.failed}
	v.checks("checks", out.Checks)
	if err := newError(path, append(d.problems, v.problems...)); err != nil {
		return nil, err
	}
	return out.Checks, nil
}
