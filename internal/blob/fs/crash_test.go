package fs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
)

const raceKeys = 150

// runChild is what the test binary does as a child. It says on its standard output what it was promised.
func runChild(role, root string) error {
	s, err := Open(root, Options{})
	if err != nil {
		return err
	}
	switch role {
	case "write":
		return writeForever(s)
	case "race":
		return raceForKeys(s)
	}
	return fmt.Errorf("unknown role %q", role)
}

// writeForever writes new objects and replaces others, and says the key of each once it is written.
func writeForever(s *Store) error {
	ctx := context.Background()
	for i := 0; ; i++ {
		key := fmt.Sprintf("new/%d/%d/%d", os.Getpid(), i%7, i)
		if err := blob.PutBytesIfAbsent(ctx, s, key, randomSealed(key, 2<<20)); err != nil {
			return err
		}
		fmt.Println(key)
		key = fmt.Sprintf("hot/%d", i%3)
		if err := blob.PutBytes(ctx, s, key, randomSealed(key, 2<<20)); err != nil {
			return err
		}
		fmt.Println(key)
	}
}

// raceForKeys waits until its standard input ends, then tries to create every key and says which it has created.
func raceForKeys(s *Store) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	for i := range raceKeys {
		key := fmt.Sprintf("race/%d/%d", i%5, i)
		err := blob.PutBytesIfAbsent(context.Background(), s, key, fmt.Append(nil, os.Getpid()))
		if err == nil {
			fmt.Println(key)
		} else if !errors.Is(err, blob.ErrExists) {
			return err
		}
	}
	return nil
}

func child(t *testing.T, role string, s *Store) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], s.root)
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.Stderr = os.Stderr
	return cmd
}

// TestStore_KilledWriterLeavesOnlyWholeObjects kills a writer with -9 at random moments. What it was promised is
// there, what is there is whole, and what it left is cleaned up.
func TestStore_KilledWriterLeavesOnlyWholeObjects(t *testing.T) {
	s := newStore(t)
	rounds, promised, visible, stale := 20, 0, 0, 0
	if testing.Short() {
		rounds = 8
	}
	for range rounds {
		acknowledged := killWriter(t, s)
		promised += len(acknowledged)
		for _, key := range acknowledged {
			if _, err := s.Stat(t.Context(), key); err != nil {
				t.Errorf("an acknowledged object is lost: %v", err)
			}
		}
		keys, err := keysOf(t, s, "", "")
		if err != nil {
			t.Fatal(err)
		}
		visible += len(keys)
		for _, key := range keys {
			body, err := blob.ReadAll(t.Context(), s, key, 1<<30)
			if err == nil {
				err = checkSealed(key, body)
			}
			if err != nil {
				t.Errorf("after kill -9: %v", err)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		removed, err := s.RemoveStale(t.Context(), 0)
		if left := tempFiles(t, s); err != nil || len(left) > 0 {
			t.Errorf("RemoveStale: %v, leaves %q", err, left)
		}
		stale += removed
	}
	t.Logf("%d kills: %d writes acknowledged, %d objects whole, %d unfinished writes", rounds, promised, visible, stale)
	if stale == 0 {
		t.Error("no kill met a write that was going on")
	}
}

// killWriter lets a child write for a short random time, kills it, and returns the keys that it said.
func killWriter(t *testing.T, s *Store) []string {
	t.Helper()
	cmd := child(t, "write", s)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var keys []string
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line that was cut is no promise
		}
		if keys = append(keys, strings.TrimSpace(line)); len(keys) == 1 {
			// The clock starts at the first object, however slow the child was to start.
			time.AfterFunc(time.Duration(rand.IntN(80_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || len(keys) == 0 {
		t.Fatalf("the writer was not killed while it wrote: %v, %d keys", err, len(keys))
	}
	return keys
}

// TestPutIfAbsent_OneWinnerAmongProcesses lets processes create the same keys in the same new folders.
func TestPutIfAbsent_OneWinnerAmongProcesses(t *testing.T) {
	const racers = 4
	s := newStore(t)
	var outs [racers]bytes.Buffer
	var cmds [racers]*exec.Cmd
	starts := make([]io.Closer, racers)
	for i := range racers {
		cmds[i] = child(t, "race", s)
		cmds[i].Stdout = &outs[i]
		in, err := cmds[i].StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		starts[i] = in
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, start := range starts {
		_ = start.Close()
	}
	winners := map[string]int{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("racer %d: %v", i, err)
		}
		for key := range strings.FieldsSeq(outs[i].String()) {
			if winners[key]++; winners[key] > 1 {
				t.Errorf("two processes created %s", key)
			}
			wantBody(t, s, key, fmt.Sprint(cmd.Process.Pid))
		}
	}
	if len(winners) != raceKeys {
		t.Errorf("%d of %d keys were created", len(winners), raceKeys)
	}
}
