package basebackup_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// The environment that turns this test program into one that only takes a backup.
const (
	childDSN    = "LIFEBOAT_TEST_MEMORY_DSN"
	childRepo   = "LIFEBOAT_TEST_MEMORY_REPO"
	childMemory = "LIFEBOAT_TEST_MEMORY"
	childDir    = "LIFEBOAT_TEST_MEMORY_DIR" // of the data
)

// unkept is a store that reads data packs and forgets them: the disk is not what is measured.
type unkept struct{ blob.Store }

func (s unkept) PutIfAbsent(ctx context.Context, key string, body io.ReaderAt, size int64) error {
	if !strings.Contains(key, "/data/") {
		return s.Store.PutIfAbsent(ctx, key, body, size)
	}
	_, err := io.Copy(io.Discard, io.NewSectionReader(body, 0, size))
	return err
}

func childOptions(dsn string) (basebackup.Options, error) {
	cfg, err := dbcore.ParseDSN(dsn)
	return basebackup.Options{Cluster: "c1", Server: cfg, WorkflowID: "child"}, err
}

// memoryChild takes a backup and prints the peak of this process's memory.
func memoryChild(dsn, dir, dataDir string) int {
	err := func() error {
		opts, err := childOptions(dsn)
		if err != nil {
			return err
		}
		store, err := openStore(dir)
		if err != nil {
			return err
		}
		r, err := repo.Open(context.Background(), unkept{store})
		if err != nil {
			return err
		}
		opts.Repo, opts.Workers, opts.DataDirectory = r, 8, dataDir
		m, err := basebackup.Take(context.Background(), opts)
		if err != nil {
			return err
		}
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		fmt.Printf("%d %s\n", m.SourceBytes, strings.Fields(peak)[0])
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// TestTake_MemoryIsBounded is invariant 14: 256 MiB, whatever the cluster's size.
func TestTake_MemoryIsBounded(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	b := newBench(t, pgtest.Options{})
	b.ballast(t, 12)
	for name, dataDir := range map[string]string{"by the replication protocol": "", "from the data directory": b.DataDir} {
		t.Run(name, func(t *testing.T) { b.measureMemory(t, dataDir) })
	}
}

func (b *bench) measureMemory(t *testing.T, dataDir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDSN+"="+b.DSN(""), childRepo+"="+b.repoDir, childMemory+"=1", childDir+"="+dataDir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	fields := strings.Fields(string(out))
	source, _ := strconv.ParseInt(fields[0], 10, 64)
	kib, err := strconv.Atoi(fields[1])
	if err != nil || source < 600<<20 {
		t.Fatalf("the child said %q", out)
	}
	t.Logf("%d MiB read, peak memory %d MiB", source>>20, kib>>10)
	if kib > 256<<10 {
		t.Errorf("peak memory is %d MiB, want at most 256", kib>>10)
	}
}
