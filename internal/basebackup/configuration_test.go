package basebackup_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// configured makes a server whose configuration lies in many places outside its data directory, with includes, lists,
// and a link in the data directory. It returns the files, by path.
func configured(t *testing.T) (*bench, map[string]string) {
	t.Helper()
	etc := pgtest.TempDir(t)
	files := map[string]string{
		etc + "/extra.conf":        "work_mem = '5MB'\ninclude_if_exists 'absent.conf'\ninclude 'sub/more.conf'\n",
		etc + "/sub/more.conf":     "# nothing but a comment\n",
		etc + "/conf.d/10-a.conf":  "primary_conninfo = 'host=h password=hunter2'\n",
		etc + "/conf.d/20 b.conf":  "cluster_name = 'it''s \\\\ me'\n",
		etc + "/access/hba.conf":   "local all all trust\nhost all @users,carl 127.0.0.1/32 \\\n trust\nhost all \"@literal\" 127.0.0.1/32 trust\nlocal replication all trust\n",
		etc + "/access/users":      "alice\n@more_users\n",
		etc + "/access/more_users": "bob\n",
		etc + "/ident.conf":        "m os db\n",
	}
	for name, content := range files {
		err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644))
		if err != nil {
			t.Fatal(err)
		}
	}
	notRead := map[string]string{etc + "/conf.d/.hidden.conf": "nonsense\n", etc + "/conf.d/old.conf.bak": "nonsense\n"}
	for name, content := range notRead {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b := newBench(t, pgtest.Options{Settings: map[string]string{"hba_file": etc + "/access/hba.conf", "max_replication_slots": "17"}})
	b.Stop(t)
	f, err := os.OpenFile(b.DataDir+"/postgresql.conf", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("Include = '" + etc + "/extra.conf' # a comment\ninclude_dir '" + etc + "/conf.d'\n")
	ident := b.DataDir + "/pg_ident.conf"
	if err = errors.Join(err, f.Close(), os.Remove(ident), os.Symlink(etc+"/ident.conf", ident)); err != nil {
		t.Fatal(err)
	}
	files[ident] = files[etc+"/ident.conf"]
	delete(files, etc+"/ident.conf") // the server knows it by the link's name
	b.Start(t)
	return b, files
}

// TestTake_ConfigurationComesAlong: files wherever they live, and by name only what belongs to the host (R4).
func TestTake_ConfigurationComesAlong(t *testing.T) {
	b, files := configured(t)
	b.Exec(t, "create role taker login replication")
	take := func(user string) (*repo.Configuration, map[string][]byte) {
		t.Helper()
		opts := b.options(t)
		opts.Server = config(t, strings.Replace(b.DSN(""), "user=postgres", "user="+user, 1))
		m, err := b.take(t, opts)
		if err != nil {
			t.Fatal(err)
		}
		if m.Configuration == nil {
			t.Fatal("the manifest knows no configuration")
		}
		return m.Configuration, b.storedFiles(t, m)
	}
	check := func(c *repo.Configuration, stored map[string][]byte) {
		t.Helper()
		for name, content := range files {
			i := slices.IndexFunc(c.Files, func(f repo.ConfigFile) bool { return f.Path == name })
			if i < 0 {
				t.Errorf("%s is not in the backup", name)
				continue
			}
			if got := string(stored[c.Files[i].Entry]); got != content || c.Files[i].Entry != path.Join(repo.ConfigDir, "files", name) {
				t.Errorf("%s is stored as %s, with %q", name, c.Files[i].Entry, got)
			}
		}
		// Those of the data directory are where they are in every base backup, and nowhere else.
		for _, name := range []string{"postgresql.conf", "postgresql.auto.conf"} {
			if !slices.Contains(c.Files, repo.ConfigFile{Path: b.DataDir + "/" + name, Entry: name}) || len(stored[name]) == 0 {
				t.Errorf("%s is not in the list %v", name, c.Files)
			}
		}
		if len(c.Files) != len(files)+2 || len(c.Unread) != 0 || len(c.Grants) != 0 {
			t.Errorf("%d files are listed, want %d; unread %v", len(c.Files), len(files)+2, c.Unread)
		}
		text := string(stored[repo.ConfigDir+"/settings.conf"])
		for _, want := range []string{"work_mem = '5MB'", "cluster_name = 'it''s \\\\ me'", "10-a.conf:1", "primary_conninfo = '…'"} {
			if want = strings.Replace(want, "5MB", "5120", 1); !strings.Contains(text, want) {
				t.Errorf("the settings do not hold %s:\n%s", want, text)
			}
		}
		if strings.Contains(text, "hunter2") {
			t.Errorf("a secret is in the settings:\n%s", text)
		}
		if c.DirectoryMode != "0700" || c.Settings["max_replication_slots"] != 17 {
			t.Errorf("the configuration is %+v", c)
		}
	}
	check(take("postgres"))

	// A role that may only replicate: the backup is taken, and says what is not in it and what would help.
	c, stored := take("taker")
	if len(c.Unread) != 3 || !slices.Equal(c.Grants, basebackup.ConfigurationGrants("taker")) || c.Settings["max_replication_slots"] != 17 {
		t.Errorf("the configuration is %+v", c)
	}
	if text := string(stored[repo.ConfigDir+"/settings.conf"]); !strings.Contains(text, "work_mem = '5120'") || strings.Contains(text, "hunter2") {
		t.Errorf("the settings that such a role sees are\n%s", text)
	}
	for _, sql := range c.Grants {
		b.Exec(t, sql)
	}
	check(take("taker"))
}

// TestTake_ConfigurationThatCannotBeRead does not keep a backup from being taken; it says so.
func TestTake_ConfigurationThatCannotBeRead(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	etc := pgtest.TempDir(t)
	big := etc + "/big.conf"
	err := errors.Join(os.WriteFile(big, []byte(strings.Repeat("# filler\n", 200_000)), 0o644), os.Mkdir(etc+"/dir", 0o755),
		os.Mkdir(b.DataDir+"/"+repo.ConfigDir, 0o700), pgtest.Owner(t).Chown(b.DataDir+"/"+repo.ConfigDir))
	if err != nil {
		t.Fatal(err)
	}
	conf := b.DataDir + "/pg_hba.conf"
	old, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, append(old, "\nlocal @/nowhere/list @"+big+" trust\nlocal @"+etc+"/dir all trust\n"...), 0); err != nil {
		t.Fatal(err)
	}
	m, err := b.take(t, b.options(t))
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, u := range m.Configuration.Unread {
		reasons[u.Path] = u.Reason
	}
	if len(reasons) != 3 || !strings.Contains(reasons["/nowhere/list"], "does not exist") || !strings.Contains(reasons[big], "at most") || reasons[etc+"/dir"] == "" {
		t.Errorf("unread are %v", reasons)
	}
	// What has the name that Lifeboat uses is the data directory's, and stays alone.
	for name := range b.storedFiles(t, m) {
		if strings.HasPrefix(name, repo.ConfigDir+"/") && name != repo.ConfigDir+"/" {
			t.Errorf("%s was stored beside what the data directory holds", name)
		}
	}
	// Names without end are not looked for without end, and what they come before is read all the same.
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "local @/nowhere/%d all trust\n", i)
	}
	if err := os.WriteFile(conf, append(old, many.String()...), 0); err != nil {
		t.Fatal(err)
	}
	if m, err = b.take(t, b.options(t)); err != nil {
		t.Fatal(err)
	}
	unread := m.Configuration.Unread
	tells := func(u repo.UnreadFile) bool { return strings.Contains(u.Reason, "more than 2000 files") }
	read := func(f repo.ConfigFile) bool { return path.Base(f.Path) == "pg_ident.conf" }
	if len(unread) > 2000 || !slices.ContainsFunc(unread, tells) || !slices.ContainsFunc(m.Configuration.Files, read) {
		t.Errorf("%d files are unread of 3000 that are not there, read are %v", len(unread), m.Configuration.Files)
	}
}

func TestIncludesOf(t *testing.T) {
	for _, tt := range []struct {
		access bool
		text   string
		want   string
	}{
		{false, "", ""},
		{false, "include 'a.conf'", "/e/a.conf"},
		{false, "  INCLUDE_DIR = '/x/conf.d/' # why", "/x/conf.d dir"},
		{false, "include_if_exists=../b.conf", "/b.conf optional"},
		{false, "include 'it''s \\' one.conf'", "/e/it's ' one.conf"},
		{false, "# include 'no.conf'\ninclude\ninclude ''\nincluded 'no.conf'\nx = 'include y'", ""},
		{false, "a = @users", ""},
		{false, "include 'a.conf'\r\ninclude 'b#c.conf'", "/e/a.conf /e/b#c.conf"},
		{true, "local all @users,\"@no\",x trust\n#local @no all trust", "/e/users"},
		{true, "local @\"my users\" all trust", "/e/my users"},
		{true, "local all \\\n@/abs/list trust", "/abs/list"},
		{true, "include \"a b.conf\"\ninclude_dir d\ninclude_if_exists c", "/e/a b.conf /e/d dir /e/c optional"},
	} {
		if got := basebackup.IncludesOf(tt.access, "/e/main.conf", tt.text); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}
