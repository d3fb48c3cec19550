package config

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sanitized returns the YAML of one cluster and its repository without secrets: the copy that a repository keeps (R5),
// which Parse reads again. Passwords are left out of connection strings, as if they came from PGPASSFILE. Other values
// are written as in the file, so that those from the environment stay references (${NAME}) and none of their content is
// copied. What belongs to a host (worker) or to the whole file (alerts) is left out. The SQL of checks is copied as it
// was written.
func (c *Config) Sanitized(cluster string) ([]byte, error) {
	found, err := c.Cluster(cluster)
	if err != nil {
		return nil, err
	}
	part := &Config{Version: c.Version, marks: c.marks, Clusters: map[string]*Cluster{cluster: found}}
	if repository, ok := c.Repositories[found.Repository]; ok {
		part.Repositories = map[string]*Repository{found.Repository: repository}
	}
	return part.yaml(), nil
}

// String returns the whole configuration as YAML without secrets, in the way of Sanitized.
func (c *Config) String() string { return string(c.yaml()) }

// group is a mapping in the order in which it is written. A tree is a group, a list, a text or a number.
type group []member

type member struct {
	name  string
	value any
}

func (c *Config) yaml() []byte {
	tree, _ := c.tree(reflect.ValueOf(c).Elem(), "")
	var b bytes.Buffer
	write(&b, tree, 0)
	return b.Bytes()
}

// write writes a tree in block style, each text on one line. YAML libraries choose among styles by what a text looks
// like, and the one at hand leaves ".inf" bare, which it then reads as a number; quotes are always right.
func write(b *bytes.Buffer, tree any, indent int) {
	pad := strings.Repeat("  ", indent)
	switch tree := tree.(type) {
	case group:
		if len(tree) == 0 {
			b.WriteString("{}\n")
		}
		for i, m := range tree {
			if i > 0 {
				b.WriteString(pad)
			}
			b.WriteString(m.name + ":")
			writeBelow(b, m.value, indent+1)
		}
	case []any:
		for i, item := range tree {
			if i > 0 {
				b.WriteString(pad)
			}
			b.WriteString("- ")
			write(b, item, indent+1)
		}
	case string:
		b.WriteString(scalar(tree) + "\n")
	default:
		fmt.Fprintln(b, tree)
	}
}

// writeBelow writes what follows "name:", on the same line if it is a text or a number.
func writeBelow(b *bytes.Buffer, tree any, indent int) {
	switch tree.(type) {
	case group, []any:
		b.WriteString("\n" + strings.Repeat("  ", indent))
	default:
		b.WriteByte(' ')
	}
	write(b, tree, indent)
}

var (
	plainWord = regexp.MustCompile(`^[a-z]{2,}$`)
	notWords  = []string{"true", "false", "null", "yes", "no", "on", "off"}
)

// scalar writes a text: bare if it is one simple word, else in double quotes, whose escapes Go and YAML share (YAML
// 1.2.2, section 5.7) as long as the text is UTF-8.
func scalar(s string) string {
	if plainWord.MatchString(s) && !slices.Contains(notWords, s) {
		return s
	}
	return strconv.Quote(strings.ToValidUTF8(s, "\ufffd"))
}

// tree turns v into plain values for the YAML library: groups in the order of their fields, names sorted. ok is false
// for what needs not be written.
func (c *Config) tree(v reflect.Value, path string) (tree any, ok bool) {
	if m := c.marks[path]; m.fromEnv {
		return m.raw, true
	}
	switch value := v.Interface().(type) {
	case DSN:
		return unexpand(value.WithoutPassword().Reveal()), true
	case time.Duration:
		return formatDuration(value), true
	case Alert:
		return group{}, true
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil, false
		}
		return c.tree(v.Elem(), path)
	case reflect.Struct:
		return c.groupTree(v, path)
	case reflect.Map:
		return c.namedTree(v, path)
	case reflect.Slice:
		return c.listTree(v, path)
	case reflect.String:
		return unexpand(v.String()), v.String() != ""
	}
	return v.Interface(), true
}

func (c *Config) groupTree(v reflect.Value, path string) (any, bool) {
	var out group
	for _, f := range fieldsOf(v.Type()) {
		if value, ok := c.tree(v.Field(f.index), join(path, f.name)); ok || f.required {
			out = append(out, member{f.name, value})
		}
	}
	return out, len(out) > 0
}

func (c *Config) namedTree(v reflect.Value, path string) (any, bool) {
	var out group
	names := v.MapKeys()
	slices.SortFunc(names, func(a, b reflect.Value) int { return cmp.Compare(a.String(), b.String()) })
	for _, name := range names {
		if value, ok := c.tree(v.MapIndex(name), join(path, name.String())); ok {
			out = append(out, member{name.String(), value})
		}
	}
	return out, len(out) > 0
}

func (c *Config) listTree(v reflect.Value, path string) (any, bool) {
	var list []any
	for i := range v.Len() {
		value, _ := c.tree(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		list = append(list, value)
	}
	return list, len(list) > 0
}
