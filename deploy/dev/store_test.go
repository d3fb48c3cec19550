package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	persistencespb "go.temporal.io/server/api/persistence/v1"
)

func namespaceWith(aliases map[string]string) *persistencespb.NamespaceDetail {
	return &persistencespb.NamespaceDetail{Config: &persistencespb.NamespaceConfig{CustomSearchAttributeAliases: aliases}}
}

const (
	keyword = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	integer = enumspb.INDEXED_VALUE_TYPE_INT
)

func TestNameColumns(t *testing.T) {
	for _, tc := range []struct {
		name    string
		has     map[string]string // column → attribute
		want    map[string]enumspb.IndexedValueType
		then    map[string]string
		changed bool
		err     string
	}{
		{
			name: "a new file", has: nil, changed: true,
			want: map[string]enumspb.IndexedValueType{"B": keyword, "A": keyword, "N": integer},
			then: map[string]string{"Keyword01": "A", "Keyword02": "B", "Int01": "N"},
		},
		{
			name: "there already", has: map[string]string{"Keyword07": "A"},
			want: map[string]enumspb.IndexedValueType{"A": keyword},
			then: map[string]string{"Keyword07": "A"},
		},
		{
			name: "one more", has: map[string]string{"Keyword01": "A"}, changed: true,
			want: map[string]enumspb.IndexedValueType{"A": keyword, "B": keyword},
			then: map[string]string{"Keyword01": "A", "Keyword02": "B"},
		},
		{
			name: "another type", has: map[string]string{"Keyword01": "A"},
			want: map[string]enumspb.IndexedValueType{"A": integer},
			err:  "A exists as Keyword, not Int",
		},
		{
			name: "no column left", has: map[string]string{"Int01": "A", "Int02": "B", "Int03": "C"},
			want: map[string]enumspb.IndexedValueType{"D": integer},
			err:  "D: every column for type Int is in use",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			detail := namespaceWith(maps.Clone(tc.has))
			changed, err := nameColumns(detail, tc.want)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || changed != tc.changed {
				t.Errorf("changed %v, %v; want %v", changed, err, tc.changed)
			}
			if got := detail.Config.CustomSearchAttributeAliases; !maps.Equal(got, tc.then) {
				t.Errorf("columns %v, want %v", got, tc.then)
			}
		})
	}
}

// TestOpenStoreLock: one server a file, and the next one when it is gone.
func TestOpenStoreLock(t *testing.T) {
	o := &options{dbFile: filepath.Join(t.TempDir(), "dev.db"), namespaces: []string{defaultNamespace}}
	first, err := openStore(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t.Context(), o); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server gets %v, want an error", err)
	}
	first.close()
	again, err := openStore(t.Context(), o)
	if err != nil {
		t.Fatalf("after the first is gone: %v", err)
	}
	again.close()
}

// TestOpenStoreForeign leaves a database of somebody else alone.
func TestOpenStoreForeign(t *testing.T) {
	dir := t.TempDir()
	o := &options{dbFile: filepath.Join(dir, "theirs.db")}
	theirs := &store{sql: sqlConfig(o)}
	admin, err := theirs.admin()
	if err != nil {
		t.Fatal(err)
	}
	if err := admin.Exec("CREATE TABLE people (name TEXT)"); err != nil {
		t.Fatal(err)
	}
	_, err = openStore(t.Context(), &options{dbFile: o.dbFile, namespaces: []string{defaultNamespace}})
	if err == nil || !strings.Contains(err.Error(), "not a database of Temporal") {
		t.Errorf("somebody else's database: %v, want an error", err)
	}
	tables, err := admin.ListTables("")
	if err != nil || fmt.Sprint(tables) != "[people]" {
		t.Errorf("tables %v, %v; want people alone", tables, err)
	}
}

func TestSQLConfig(t *testing.T) {
	c := sqlConfig(&options{dbFile: "/a b/100%?#.db", pragmas: map[string]string{"synchronous": "full"}})
	if want := "/a b/100%25%3f%23.db"; c.DatabaseName != want {
		t.Errorf("name %q, want %q", c.DatabaseName, want)
	}
	if c.ConnectAttributes["synchronous"] != "full" || c.ConnectAttributes["journal_mode"] != "wal" {
		t.Errorf("attributes %v", c.ConnectAttributes)
	}
	if c := sqlConfig(&options{}); c.ConnectAttributes["mode"] != "memory" {
		t.Errorf("without a file: attributes %v, want memory", c.ConnectAttributes)
	}
}

// TestOpenStoreKeepsForeignBytes: a file that is no database stays as it is.
func TestOpenStoreKeepsForeignBytes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notes.txt")
	text := []byte("not a database at all, but somebody's notes")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t.Context(), &options{dbFile: file, namespaces: []string{defaultNamespace}}); err == nil {
		t.Error("a text file is accepted as a database")
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != string(text) {
		t.Errorf("the file now holds %q, %v", got, err)
	}
}
