package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/dbcore"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/repo"
)

// nowhere are options for a cluster whose server is not there and whose repository is in a folder.
func nowhere(t *testing.T, dir string) Options {
	t.Helper()
	cfg, err := dbcore.ParseDSN("host=" + t.TempDir() + " user=u dbname=d")
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Cluster: "orders", Server: cfg, RepositoryPath: dir, RepositoryName: "file://" + dir,
		Open: func(ctx context.Context) (*repo.Repository, error) {
			store, err := fs.Open(dir, fs.Options{})
			if err != nil {
				return nil, err
			}
			return repo.Open(ctx, store)
		},
		Proofs: func(context.Context, *repo.Repository) (map[string]Proof, error) { return nil, nil },
	}
}

// look collects and judges, and gives the severities of the findings by id.
func look(t *testing.T, o Options) (*Snapshot, map[string]Severity) {
	t.Helper()
	s, err := Collect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]Severity{}
	for _, f := range Judge(s, DefaultLimits()) {
		out[f.ID] = f.Severity
	}
	return s, out
}

// TestCollect_FullDisk fills a real file system.
func TestCollect_FullDisk(t *testing.T) {
	dir := t.TempDir()
	err := unix.Mount("lifeboat-test", dir, "tmpfs", 0, "size=4m,mode=0777")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("the rule on disks is not tried on a full one: only root may mount one here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	store, err := fs.Open(filepath.Join(dir, "repo"), fs.Options{Create: true})
	if err == nil {
		_, err = repo.OpenOrCreate(t.Context(), store)
	}
	if err != nil {
		t.Fatal(err)
	}
	o := nowhere(t, filepath.Join(dir, "repo"))
	ballast := filepath.Join(dir, "ballast")
	for _, step := range []struct {
		bytes       int
		disk, write Severity
	}{
		{0, "", ""}, {3800 << 10, Warning, ""}, {4 << 20, Critical, Critical}, {0, "", ""},
	} {
		err := os.WriteFile(ballast, make([]byte, step.bytes), 0o600)
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		_, found := look(t, o)
		if found["disk_space/repository"] != step.disk || found["repository_write"] != step.write {
			t.Errorf("with %d bytes on it: %v, want disk_space %q, repository_write %q", step.bytes, found, step.disk, step.write)
		}
	}
}

// TestCollect_Hangs: a mount that answers nothing, not even the end of a context, is a finding in time.
func TestCollect_Hangs(t *testing.T) {
	o := nowhere(t, t.TempDir())
	release := make(chan struct{})
	defer close(release)
	o.RepositoryTime = 50 * time.Millisecond
	o.Open = func(context.Context) (*repo.Repository, error) {
		<-release
		return nil, errors.New("released")
	}
	s, found := look(t, o)
	if found["repository_unreachable"] != Critical || !strings.Contains(s.Repository.Failed.Problem, "no answer within") {
		t.Errorf("found %v, %+v", found, s.Repository)
	}
	for _, a := range Areas() {
		if a == AreaServer || a == AreaRepository || a == AreaSchedules { // judged, and not looked at by Collect
			continue
		}
		if !s.unseen(a) {
			t.Errorf("%s counts as looked at", a)
		}
	}
}

// TestCollect_Cancelled: the end of the caller's context is an error, and nothing about the cluster.
func TestCollect_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Collect(ctx, nowhere(t, t.TempDir())); !errors.Is(err, context.Canceled) || s != nil {
		t.Errorf("%+v, %v", s, err)
	}
}
