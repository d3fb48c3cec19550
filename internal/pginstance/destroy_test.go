package pginstance_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What Destroy may remove, and what it refuses.
func TestDestroyGuard(t *testing.T) {
	for name, c := range map[string]struct {
		files   []string // below root/dir; none: an empty directory
		dir     string
		guard   func(root string) pginstance.Guard
		removed bool
	}{
		"no guard": {
			[]string{"PG_VERSION"},
			"d",
			func(string) pginstance.Guard { return pginstance.Guard{} }, false,
		},
		"below the root": {
			[]string{"PG_VERSION", "base/1", "global/pg_control"},
			"d",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root} }, true,
		},
		"deep below the root": {
			[]string{"PG_VERSION"},
			"a/b/d",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root} }, true,
		},
		"the root itself": {
			[]string{"PG_VERSION"},
			".",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root} }, false,
		},
		"beside the root": {
			[]string{"PG_VERSION"},
			"root-2",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root + "/root"} }, false,
		},
		"no cluster": {
			[]string{"thesis.tex"},
			"d",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root, Marker: "marker"} }, false,
		},
		"half laid, with the marker": {
			[]string{"marker", "base/1"},
			"d",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root, Marker: "marker"} }, true,
		},
		"marker alone": {
			[]string{"marker", "PG_VERSION"},
			"d",
			func(string) pginstance.Guard { return pginstance.Guard{Marker: "marker"} }, true,
		},
		"a cluster without the marker": {
			[]string{"PG_VERSION"},
			"d",
			func(string) pginstance.Guard { return pginstance.Guard{Marker: "marker"} }, false,
		},
		"the marker outside the root": {
			[]string{"marker"},
			"d",
			func(root string) pginstance.Guard {
				return pginstance.Guard{WorkRoot: root + "/root", Marker: "marker"}
			}, false,
		},
		"a marker that leads elsewhere": {
			[]string{"PG_VERSION"},
			"d",
			func(string) pginstance.Guard { return pginstance.Guard{Marker: "../d/PG_VERSION"} }, false,
		},
		"empty": {
			nil, "d",
			func(root string) pginstance.Guard { return pginstance.Guard{WorkRoot: root} }, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.Mkdir(root+"/root", 0o755); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(root, c.dir)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for _, f := range c.files {
				write(t, filepath.Join(dir, f))
			}
			err := pginstance.Destroy(t.Context(), dir, c.guard(root))
			if c.removed && (err != nil || exists(dir)) {
				t.Errorf("error %v, directory there: %v", err, exists(dir))
			}
			if !c.removed && !errors.Is(err, pginstance.ErrNotOurs) {
				t.Errorf("error %v, want ErrNotOurs", err)
			}
			for _, f := range c.files {
				if !c.removed && !exists(filepath.Join(dir, f)) {
					t.Errorf("%s was removed all the same", f)
				}
			}
			if c.removed {
				if err := pginstance.Destroy(t.Context(), dir, c.guard(root)); err != nil {
					t.Errorf("again: %v", err)
				}
			}
		})
	}
}

// Links: one that poses as the data directory is refused, one within it is removed and not followed.
func TestDestroyFollowsNoLinks(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	write(t, outside+"/PG_VERSION")
	if err := os.Symlink(outside, root+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := pginstance.Destroy(t.Context(), root+"/link", pginstance.Guard{WorkRoot: root}); !errors.Is(err, pginstance.ErrNotOurs) {
		t.Errorf("a link as the data directory: %v", err)
	}
	write(t, root+"/other/PG_VERSION")
	if err := os.Symlink("other", root+"/inner"); err != nil {
		t.Fatal(err)
	}
	if err := pginstance.Destroy(t.Context(), root+"/inner", pginstance.Guard{WorkRoot: root}); !errors.Is(err, pginstance.ErrNotOurs) {
		t.Errorf("a link to another cluster below the root: %v", err)
	}
	if !exists(root + "/other/PG_VERSION") {
		t.Error("the other cluster was removed")
	}
	if err := os.Symlink(outside, root+"/parent"); err != nil {
		t.Fatal(err)
	}
	write(t, outside+"/d/PG_VERSION")
	if err := pginstance.Destroy(t.Context(), root+"/parent/d", pginstance.Guard{WorkRoot: root}); !errors.Is(err, pginstance.ErrNotOurs) {
		t.Errorf("a link on the way: %v", err)
	}
	write(t, root+"/d/PG_VERSION")
	write(t, root+"/d/pg_tblspc/x")
	if err := os.Symlink(outside, root+"/d/pg_tblspc/16385"); err != nil {
		t.Fatal(err)
	}
	if err := pginstance.Destroy(t.Context(), root+"/d", pginstance.Guard{WorkRoot: root}); err != nil {
		t.Error(err)
	}
	if !exists(outside+"/PG_VERSION") || !exists(outside+"/d/PG_VERSION") {
		t.Error("a link was followed")
	}
}

// A directory under the name of our socket directory that is another user's stays.
func TestDestroySparesOthersSocketDir(t *testing.T) {
	root := t.TempDir()
	dir := root + "/d"
	write(t, dir+"/PG_VERSION")
	name := pginstance.PrivateSocketName(dir)
	if err := os.Mkdir(name, 0o755); err != nil { // not 0700: not ours
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(name) })
	for range 2 { // with the data directory, and without
		if err := pginstance.Destroy(t.Context(), dir, pginstance.Guard{WorkRoot: root}); err != nil {
			t.Fatal(err)
		}
		if exists(dir) || !exists(name) {
			t.Errorf("data directory there: %v, the other's directory there: %v", exists(dir), exists(name))
		}
	}
}

// A running server is stopped and removed, with its socket directory; a refused one goes on.
func TestDestroyRunning(t *testing.T) {
	s := stopped(t, 0)
	in := start(t, options(s))
	ready(t, in)
	for name, destroy := range map[string]func(pginstance.Guard) error{
		"method":   func(g pginstance.Guard) error { return in.Destroy(t.Context(), g) },
		"function": func(g pginstance.Guard) error { return pginstance.Destroy(t.Context(), s.DataDir, g) },
	} {
		if err := destroy(pginstance.Guard{Marker: "not-there"}); !errors.Is(err, pginstance.ErrNotOurs) || in.Ended() {
			t.Fatalf("%s: refused: error %v, server ended %v", name, err, in.Ended())
		}
	}
	for range 2 {
		if err := in.Destroy(t.Context(), pginstance.Guard{WorkRoot: s.Dir}); err != nil {
			t.Fatal(err)
		}
	}
	if !in.Ended() || exists(s.DataDir) || exists(in.SocketDir()) {
		t.Errorf("ended %v, data directory %v, socket directory %v", in.Ended(), exists(s.DataDir), exists(in.SocketDir()))
	}
}

// What a dead process left is removed by whoever comes next, in each state in which it may have been left; the context
// may have ended.
func TestDestroyWhatAnotherLeft(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, leave := range map[string]func(*testing.T, *pgtest.Server){
		"a detached server": func(t *testing.T, s *pgtest.Server) {
			parent, _ := startInOtherProcess(t, s, "detached")
			_ = parent.Process.Kill()
		},
		"a server whose directory is gone": func(t *testing.T, s *pgtest.Server) {
			parent, _ := startInOtherProcess(t, s, "detached")
			_ = parent.Process.Kill()
			ready(t, attach(t, s))
			if err := os.RemoveAll(s.DataDir); err != nil {
				t.Fatal(err)
			}
		},
		"a bound server's remains": func(t *testing.T, s *pgtest.Server) {
			parent, pid := startInOtherProcess(t, s, "bound")
			_ = parent.Process.Kill()
			pgtest.Eventually(t, "the server is gone", func() bool { return !alive(pid) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := stopped(t, 0)
			leave(t, s)
			if !exists(pginstance.PrivateSocketName(s.DataDir)) {
				t.Fatal("nothing was left: the test tests nothing")
			}
			began := time.Now()
			if err := pginstance.Destroy(ended, s.DataDir, pginstance.Guard{WorkRoot: s.Dir}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 5*time.Second { // half of the time after which SIGKILL helps out
				t.Errorf("took %v", took)
			}
			if exists(s.DataDir) || exists(pginstance.PrivateSocketName(s.DataDir)) {
				t.Errorf("left: data directory %v, socket directory %v", exists(s.DataDir), exists(pginstance.PrivateSocketName(s.DataDir)))
			}
			if list, err := pginstance.Running(s.Dir); err != nil || len(list) != 0 {
				t.Errorf("left: %v, %v", list, err)
			}
		})
	}
}
