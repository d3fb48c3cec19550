package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// mark remembers how a value was written.
type mark struct {
	line, column int
	raw          string // a text before ${NAME} was expanded; empty for a DSN
	fromEnv      bool   // raw has a reference, so that the expanded value may be a secret
}

// decoder maps YAML's nodes to the types of this package and collects what is wrong.
type decoder struct {
	env      lookup
	marks    map[string]mark
	failed   map[string]bool // paths whose value was not taken, so that there is nothing to validate
	problems []Problem
}

// problem reports that the value at path cannot be taken.
func (d *decoder) problem(n ast.Node, path, format string, args ...any) {
	d.failed[path] = true
	d.report(n, path, format, args...)
}

func (d *decoder) report(n ast.Node, path, format string, args ...any) {
	line, column := position(n.GetToken())
	d.problems = append(d.problems, Problem{Line: line, Column: column, Path: path, Text: fmt.Sprintf(format, args...)})
}

// entry is one key and its value.
type entry struct {
	name  string
	key   ast.Node
	value ast.Node
}

// at is the node whose place stands for the entry: the value's if it is one word or text, else the key's.
func (e entry) at() ast.Node {
	if _, ok := e.value.(ast.ScalarNode); ok && !absent(e.value) {
		return e.value
	}
	return e.key
}

func (d *decoder) wrongType(n ast.Node, path, want string) {
	d.problem(n, path, "must be %s, not %s", want, describe(n))
}

// entries returns the keys of a mapping, each once, or ok=false and a problem if n is none.
func (d *decoder) entries(n ast.Node, path string) (list []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		d.wrongType(n, path, "a group of keys")
		return nil, false
	}
	lines := map[string]int{}
	for _, v := range values {
		scalar, isScalar := v.Key.(ast.ScalarNode)
		if !isScalar || v.Key.IsMergeKey() {
			d.report(v.Key, path, "this kind of key is not supported: write NAME: VALUE")
			continue
		}
		name := scalar.GetToken().Value
		line, _ := position(v.Key.GetToken())
		if first, twice := lines[name]; twice {
			d.report(v.Key, join(path, name), "is there twice, in line %d already", first)
			continue
		}
		lines[name] = line
		list = append(list, entry{name: name, key: v.Key, value: v.Value})
	}
	return list, true
}

// join appends a key to a path, without showing what is no plain key.
func join(path, name string) string {
	if quote(name) == redacted {
		name = redacted
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d *decoder) mark(path string, at ast.Node) {
	line, column := position(at.GetToken())
	d.marks[path] = mark{line: line, column: column}
}

// value maps n to v. What YAML calls null leaves v as it is: at its default.
func (d *decoder) value(n ast.Node, path string, v reflect.Value) {
	if absent(n) {
		return
	}
	switch target := v.Addr().Interface().(type) {
	case *DSN:
		if s, _, ok := d.text(n, path); ok {
			*target = NewDSN(s)
		}
		return
	case *time.Duration:
		d.duration(n, path, target)
		return
	case *Alert:
		d.alert(n, path, target)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, path, v.Elem())
	case reflect.Struct:
		d.group(n, path, v)
	case reflect.Map:
		d.named(n, path, v)
	case reflect.Slice:
		d.list(n, path, v)
	case reflect.Int:
		d.number(n, path, v)
	default:
		if s, m, ok := d.text(n, path); ok {
			d.marks[path] = m
			v.SetString(s)
		}
	}
}

// field is a struct's field and what its tag says.
type field struct {
	name     string
	required bool
	index    int
}

func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		name, options, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" {
			out = append(out, field{name: name, required: options == "required", index: i})
		}
	}
	return out
}

func (d *decoder) group(n ast.Node, path string, v reflect.Value) {
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	fields := map[string]field{}
	for _, f := range fieldsOf(v.Type()) {
		fields[f.name] = f
	}
	seen := map[string]bool{}
	for _, e := range entries {
		f, known := fields[e.name]
		if !known {
			d.unknownKey(e, path, slices.Sorted(maps.Keys(fields)))
			continue
		}
		seen[e.name] = !absent(e.value)
		d.mark(join(path, e.name), e.at())
		d.value(e.value, join(path, e.name), v.Field(f.index))
	}
	for _, f := range fieldsOf(v.Type()) {
		if f.required && !seen[f.name] {
			d.missing(n, path, f.name)
		}
	}
}

// missing reports a required key at the place of the group that lacks it.
func (d *decoder) missing(n ast.Node, path, name string) {
	p := Problem{Path: join(path, name), Text: "is missing"}
	d.failed[p.Path] = true
	if m, ok := d.marks[path]; ok {
		p.Line, p.Column = m.line, m.column
	} else {
		p.Line, p.Column = position(firstOf(n).GetToken())
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) unknownKey(e entry, path string, known []string) {
	if near := nearest(e.name, known); near != "" {
		d.report(e.key, path, "unknown key %s; did you mean %q?", quote(e.name), near)
		return
	}
	d.report(e.key, path, "unknown key %s; known here: %s", quote(e.name), strings.Join(known, ", "))
}

// named maps a mapping from the owner's names to groups. Each group begins with its defaults.
func (d *decoder) named(n ast.Node, path string, v reflect.Value) {
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range entries {
		if err := CheckName(e.name); err != nil {
			d.problem(e.key, path, "%v", err)
			continue
		}
		elem := reflect.New(v.Type().Elem().Elem())
		if starts, ok := elem.Interface().(interface{ setDefaults() }); ok {
			starts.setDefaults()
		}
		sub := join(path, e.name)
		d.mark(sub, e.key)
		if absent(e.value) {
			for _, f := range fieldsOf(elem.Elem().Type()) {
				if f.required {
					d.missing(e.key, sub, f.name)
				}
			}
		}
		d.value(e.value, sub, elem.Elem())
		v.SetMapIndex(reflect.ValueOf(e.name), elem)
	}
}

func (d *decoder) list(n ast.Node, path string, v reflect.Value) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrongType(n, path, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(sequence.Values), len(sequence.Values)))
	for i, item := range sequence.Values {
		sub := fmt.Sprintf("%s[%d]", path, i)
		if absent(item) {
			d.problem(n, sub, "is empty")
			continue
		}
		d.mark(sub, firstOf(item))
		d.value(item, sub, v.Index(i))
	}
}

// text returns a text with its references expanded, and its mark.
func (d *decoder) text(n ast.Node, path string) (string, mark, bool) {
	var raw string
	switch n := n.(type) {
	case *ast.StringNode:
		raw = n.Value
	case *ast.LiteralNode:
		raw = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		d.problem(n, path, `must be a text, not %s: write it in quotes`, describe(n))
		return "", mark{}, false
	default:
		d.wrongType(n, path, "a text")
		return "", mark{}, false
	}
	s, used, err := expand(raw, d.env)
	if err != nil {
		d.problem(n, path, "%v", err)
		return "", mark{}, false
	}
	line, column := position(n.GetToken())
	return s, mark{line: line, column: column, raw: raw, fromEnv: used}, true
}

func (d *decoder) duration(n ast.Node, path string, target *time.Duration) {
	if _, isNumber := n.(*ast.IntegerNode); isNumber {
		d.problem(n, path, "has no unit: %v", errDuration)
		return
	}
	s, m, ok := d.text(n, path)
	if !ok {
		return
	}
	parsed, err := ParseDuration(s)
	if err != nil {
		d.problem(n, path, "bad duration %s: %v", quote(m.raw), err)
		return
	}
	d.marks[path] = m
	*target = parsed
}

// number takes a whole number, or a text that got one from the environment.
func (d *decoder) number(n ast.Node, path string, v reflect.Value) {
	switch node := n.(type) {
	case *ast.IntegerNode:
		if value, err := strconv.Atoi(fmt.Sprint(node.Value)); err == nil {
			v.SetInt(int64(value))
			return
		}
	case *ast.StringNode:
		s, m, ok := d.text(n, path)
		if !ok {
			return
		}
		value, err := strconv.Atoi(s)
		if err == nil && m.fromEnv {
			d.marks[path] = m
			v.SetInt(int64(value))
			return
		}
	}
	d.wrongType(n, path, "a whole number")
}

// alert checks the form of an alert rule, references included, and keeps none of it.
func (d *decoder) alert(n ast.Node, path string, target *Alert) {
	if _, ok := d.entries(n, path); !ok {
		return
	}
	target.Line, _ = position(firstOf(n).GetToken())
	d.opaque(n, path)
}

func (d *decoder) opaque(n ast.Node, path string) {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		entries, _ := d.entries(n, path)
		for _, e := range entries {
			d.opaque(e.value, join(path, e.name))
		}
	case *ast.SequenceNode:
		for i, item := range n.Values {
			d.opaque(item, fmt.Sprintf("%s[%d]", path, i))
		}
	case *ast.StringNode, *ast.LiteralNode:
		d.text(n, path)
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		d.problem(n, path, "is %s", describe(n))
	}
}
