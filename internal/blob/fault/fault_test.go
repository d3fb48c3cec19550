package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/blobtest"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/blob/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore_WithoutRulesKeepsContractOfMem(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return New(mem.New()) })
}

func TestStore_WithoutRulesKeepsContractOfFS(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		s, err := fs.Open(t.TempDir(), fs.Options{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		return New(s)
	})
}

// setup returns a store with the rules over one that holds k/a, k/b and k/c, each with "0123456789".
func setup(t *testing.T, rules ...Rule) (*Store, *mem.Store) {
	t.Helper()
	inner := mem.New()
	for _, key := range []string{"k/a", "k/b", "k/c"} {
		if err := blob.PutBytes(t.Context(), inner, key, []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
	}
	return New(inner, rules...), inner
}

func read(ctx context.Context, s blob.Store, key string, offset, length int64) (string, error) {
	r, err := s.Get(ctx, key, offset, length)
	if err != nil {
		return "", err
	}
	defer r.Close()
	body, err := io.ReadAll(r)
	return string(body), err
}

func keys(ctx context.Context, s blob.Store, prefix string) (string, error) {
	var all []string
	for info, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return strings.Join(all, " "), err
		}
		all = append(all, info.Key)
	}
	return strings.Join(all, " "), nil
}

// calls does each operation once and says what came of it.
func calls(ctx context.Context, s blob.Store) map[Op]error {
	result := map[Op]error{
		Put:         blob.PutBytes(ctx, s, "new/put", []byte("x")),
		PutIfAbsent: blob.PutBytesIfAbsent(ctx, s, "new/absent", []byte("x")),
		Delete:      s.Delete(ctx, "k/c"),
	}
	_, result[Stat] = s.Stat(ctx, "k/a")
	_, result[List] = keys(ctx, s, "k/")
	r, err := s.Get(ctx, "k/a", 0, -1)
	result[Get] = err
	if err == nil {
		_, result[GetRead] = io.ReadAll(r)
		_ = r.Close()
	}
	return result
}

func TestFail_MeetsOnlyItsOperationAndHasNoEffect(t *testing.T) {
	errBoom := errors.New("boom")
	for _, op := range []Op{Put, PutIfAbsent, Get, GetRead, Stat, List, Delete} {
		s, inner := setup(t, Rule{Op: op, Do: Fail(errBoom)})
		for other, err := range calls(t.Context(), s) {
			if failed := errors.Is(err, errBoom); failed != (other == op) {
				t.Errorf("fail of %s: %s gives %v", op, other, err)
			}
		}
		checkEffects(t, inner, op, Put|PutIfAbsent|Delete)
		if unused := s.Unused(); len(unused) > 0 {
			t.Errorf("unused: %v", unused)
		}
	}
}

func TestFailAfter_HasItsEffect(t *testing.T) {
	for _, op := range []Op{Put, PutIfAbsent, Get, GetRead, Stat, List, Delete} {
		s, inner := setup(t, Rule{Op: op, Do: FailAfter(nil)})
		for other, err := range calls(t.Context(), s) {
			if failed := errors.Is(err, ErrInjected); failed != (other == op) {
				t.Errorf("fail after %s: %s gives %v", op, other, err)
			}
		}
		checkEffects(t, inner, op, 0)
		if unused := s.Unused(); len(unused) > 0 {
			t.Errorf("unused: %v", unused)
		}
	}
}

// checkEffects compares what calls did with what it should have done if op has no effect, where op is one of without.
func checkEffects(t *testing.T, inner blob.Store, op, without Op) {
	t.Helper()
	expected := []string{}
	if op&without != Delete {
		expected = append(expected, "k/a", "k/b")
	} else {
		expected = append(expected, "k/a", "k/b", "k/c")
	}
	if op&without != PutIfAbsent {
		expected = append(expected, "new/absent")
	}
	if op&without != Put {
		expected = append(expected, "new/put")
	}
	if got, err := keys(t.Context(), inner, ""); err != nil || got != strings.Join(expected, " ") {
		t.Errorf("after the fault in %s the store holds %s, %v; want %s", op, got, err, expected)
	}
}

func TestFailAfter_KeepsTheErrorOfACallThatFails(t *testing.T) {
	s, _ := setup(t, Rule{Op: PutIfAbsent | Stat, Count: Forever, Do: FailAfter(nil)})
	if err := blob.PutBytesIfAbsent(t.Context(), s, "k/a", nil); !errors.Is(err, blob.ErrExists) || errors.Is(err, ErrInjected) {
		t.Errorf("PutIfAbsent = %v; want ErrExists only", err)
	}
	if len(s.Unused()) != 1 {
		t.Error("a rule that did nothing counts as used")
	}
}

func TestFailAfter_GivesWholeBodyAndList(t *testing.T) {
	s, _ := setup(t, Rule{Op: GetRead | List, Count: 2, Do: FailAfter(nil)})
	if got, err := read(t.Context(), s, "k/a", 2, 3); got != "234" || !errors.Is(err, ErrInjected) {
		t.Errorf("read %q, %v", got, err)
	}
	if got, err := keys(t.Context(), s, "k/"); got != "k/a k/b k/c" || !errors.Is(err, ErrInjected) {
		t.Errorf("list %q, %v", got, err)
	}
}

func TestRule_NthAndCount(t *testing.T) {
	for _, c := range []struct {
		nth, count int
		want       string // one letter a call: F fails, . goes through
	}{
		{0, 0, "F....."},
		{1, 1, "F....."},
		{3, 0, "..F..."},
		{2, 3, ".FFF.."},
		{0, Forever, "FFFFFF"},
		{5, Forever, "....FF"},
		{7, 1, "......"},
	} {
		s, _ := setup(t, Rule{Op: Stat, Nth: c.nth, Count: c.count, Do: Fail(nil)})
		got := ""
		for range 6 {
			if _, err := s.Stat(t.Context(), "k/a"); err != nil {
				got += "F"
			} else {
				got += "."
			}
		}
		if got != c.want {
			t.Errorf("nth %d, count %d: %s, want %s", c.nth, c.count, got, c.want)
		}
		if unused := len(s.Unused()) == 1; unused != !strings.Contains(c.want, "F") {
			t.Errorf("nth %d, count %d: unused is %t", c.nth, c.count, unused)
		}
	}
}

func TestRules_ReadLikeAScript(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	s, _ := setup(t, Rule{Op: Stat, Do: Fail(first)}, Rule{Op: Stat, Do: Fail(second)})
	for i, expected := range []error{first, second, nil} {
		if _, err := s.Stat(t.Context(), "k/a"); !errors.Is(err, expected) {
			t.Errorf("call %d: %v, want %v", i, err, expected)
		}
	}
	s.Add(Rule{Op: Stat, Do: Fail(second)})
	if _, err := s.Stat(t.Context(), "k/a"); !errors.Is(err, second) {
		t.Errorf("rule that was added: %v", err)
	}
}

func TestRule_Key(t *testing.T) {
	for name, c := range map[string]struct {
		key  func(string) bool
		want string
	}{
		"nil":      {nil, "k/a k/b k/c"},
		"exactly":  {Exactly("k/b"), "k/b"},
		"prefix":   {Prefix("k/"), "k/a k/b k/c"},
		"contains": {Contains("/c"), "k/c"},
		"func":     {func(k string) bool { return k > "k/a" }, "k/b k/c"},
		"none":     {Exactly("k"), ""},
	} {
		s, _ := setup(t, Rule{Op: Any, Key: c.key, Count: Forever, Do: Fail(nil)})
		var failed []string
		for _, key := range []string{"k/a", "k/b", "k/c"} {
			if _, err := s.Stat(t.Context(), key); err != nil {
				failed = append(failed, key)
			}
		}
		if got := strings.Join(failed, " "); got != c.want {
			t.Errorf("%s meets %q, want %q", name, got, c.want)
		}
	}
}

func TestGetRead_PlacesAreOffsetsInTheObject(t *testing.T) {
	for _, c := range []struct {
		name           string
		at             int64
		do             Action
		offset, length int64
		want           string
		fails, unused  bool
	}{
		{"fail at the start", 0, Fail(nil), 0, -1, "", true, false},
		{"fail inside", 4, Fail(nil), 0, -1, "0123", true, false},
		{"fail inside a range", 4, Fail(nil), 2, 5, "23", true, false},
		{"fail before a range", 4, Fail(nil), 6, 2, "", true, false},
		{"fail behind a range", 4, Fail(nil), 0, 4, "0123", false, true},
		{"fail behind the end", 11, Fail(nil), 0, -1, "0123456789", false, true},
		{"truncate inside", 4, Truncate(), 0, -1, "0123", false, false},
		{"truncate to nothing", 0, Truncate(), 0, -1, "", false, false},
		{"truncate before a range", 4, Truncate(), 6, 2, "", false, false},
		{"truncate at the very end", 10, Truncate(), 0, -1, "0123456789", false, true},
		{"truncate behind a range", 9, Truncate(), 0, 9, "012345678", false, true},
		{"flip", 4, Flip(), 0, -1, "0123556789", false, false},
		{"flip the first", 0, Flip(), 0, -1, "1123456789", false, false},
		{"flip the last", 9, Flip(), 0, 10, "0123456788", false, false},
		{"flip inside a range", 4, Flip(), 3, 3, "355", false, false},
		{"flip before a range", 4, Flip(), 5, 3, "567", false, true},
		{"flip behind a range", 4, Flip(), 1, 3, "123", false, true},
		{"flip behind the end", 10, Flip(), 0, -1, "0123456789", false, true},
		{"flip in an empty range", 4, Flip(), 4, 0, "", false, true},
		{"delay", 4, Delay(time.Nanosecond), 0, -1, "0123456789", false, false},
	} {
		for _, chunk := range []int{1, 3, 512} {
			s, _ := setup(t, Rule{Op: GetRead, Key: Exactly("k/a"), At: c.at, Do: c.do})
			r, err := s.Get(t.Context(), "k/a", c.offset, c.length)
			if err != nil {
				t.Fatal(err)
			}
			got, err := readInPieces(r, chunk)
			_ = r.Close()
			if got != c.want || (err != nil) != c.fails || (len(s.Unused()) == 1) != c.unused {
				t.Errorf("%s, in pieces of %d: %q, %v, unused %v", c.name, chunk, got, err, s.Unused())
			}
			if _, again := r.Read(make([]byte, 1)); c.fails && !errors.Is(again, ErrInjected) {
				t.Errorf("%s: Read after the error: %v", c.name, again)
			}
		}
	}
}

func readInPieces(r io.Reader, size int) (string, error) {
	var all []byte
	piece := make([]byte, size)
	for {
		n, err := r.Read(piece)
		all = append(all, piece[:n]...)
		if err == io.EOF {
			return string(all), nil
		}
		if err != nil {
			return string(all), err
		}
	}
}

func TestFlip_IsTheSameInEveryRead(t *testing.T) {
	s, _ := setup(t, Rule{Op: GetRead, At: 4, Count: Forever, Do: Flip()})
	for range 3 {
		if got, err := read(t.Context(), s, "k/a", 0, -1); err != nil || got != "0123556789" {
			t.Errorf("read %q, %v", got, err)
		}
		if got, err := read(t.Context(), s, "k/a", 4, 1); err != nil || got != "5" {
			t.Errorf("read %q, %v", got, err)
		}
	}
}

func TestList_FailsAtAPlace(t *testing.T) {
	for at, expected := range []string{"", "k/a", "k/a k/b", "k/a k/b k/c"} {
		s, _ := setup(t, Rule{Op: List, Key: Exactly("k"), At: int64(at), Do: Fail(nil)})
		if got, err := keys(t.Context(), s, "k"); got != expected || !errors.Is(err, ErrInjected) {
			t.Errorf("fail at %d gives %q, %v; want %q", at, got, err, expected)
		}
		if len(s.Unused()) > 0 {
			t.Errorf("fail at %d is unused", at)
		}
		if got, err := keys(t.Context(), s, "k"); got != "k/a k/b k/c" || err != nil {
			t.Errorf("second list gives %q, %v", got, err)
		}
	}
	s, _ := setup(t, Rule{Op: List, At: 4, Do: Fail(nil)})
	if got, err := keys(t.Context(), s, ""); got != "k/a k/b k/c" || err != nil || len(s.Unused()) != 1 {
		t.Errorf("fail behind the end gives %q, %v, unused %v", got, err, s.Unused())
	}
}

func TestHangAndDelay_EndWithTheContext(t *testing.T) {
	for name, do := range map[string]Action{"hang": Hang(), "delay": Delay(time.Hour)} {
		for _, op := range []Op{Put, PutIfAbsent, Get, GetRead, Stat, List, Delete} {
			s, inner := setup(t, Rule{Op: op, Do: do})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- calls(ctx, s)[op] }()
			select {
			case err := <-done:
				t.Errorf("%s of %s did not wait: %v", name, op, err)
			case <-time.After(20 * time.Millisecond):
				cancel()
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("%s of %s: %v; want context.Canceled", name, op, err)
				}
			}
			cancel()
			if got, _ := keys(t.Context(), inner, "new/"); op&Writes != 0 && strings.Contains(got, opKey(op)) {
				t.Errorf("%s of %s had its effect: %s", name, op, got)
			}
		}
	}
}

func opKey(op Op) string {
	if op == Put {
		return "new/put"
	}
	return "new/absent"
}

func TestHooks_RunBeforeAndAfterTheEffect(t *testing.T) {
	var log []string
	var inner *mem.Store
	hook := func(name string) func(context.Context, Call) error {
		return func(ctx context.Context, c Call) error {
			_, err := inner.Stat(ctx, c.Key)
			log = append(log, fmt.Sprintf("%s %s %s exists=%t", name, c.Op, c.Key, err == nil))
			return nil
		}
	}
	s, in := setup(t,
		Rule{Op: PutIfAbsent, Do: Before(hook("before"))},
		Rule{Op: PutIfAbsent, Do: After(hook("after"))},
		Rule{Op: Delete, Do: After(hook("after"))},
		Rule{Op: GetRead, At: 3, Do: Before(hook("at 3"))})
	inner = in
	for _, key := range []string{"n/1", "n/2", "n/3"} {
		if err := blob.PutBytesIfAbsent(t.Context(), s, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), "n/1"); err != nil {
		t.Fatal(err)
	}
	if got, err := read(t.Context(), s, "k/a", 0, -1); err != nil || got != "0123456789" {
		t.Fatalf("read %q, %v", got, err)
	}
	expected := []string{
		"before put if absent n/1 exists=false", "after put if absent n/2 exists=true", "after delete n/1 exists=false",
		"at 3 read k/a exists=true",
	}
	if !slices.Equal(log, expected) {
		t.Errorf("hooks: %q, want %q", log, expected)
	}
}

func TestHooks_RunOnceInAList(t *testing.T) {
	for at, want := range []int{1, 1, 1, 1, 0} {
		ran := 0
		s, _ := setup(t, Rule{Op: List, At: int64(at), Do: Before(func(context.Context, Call) error { ran++; return nil })})
		if got, err := keys(t.Context(), s, "k/"); err != nil || got != "k/a k/b k/c" || ran != want {
			t.Errorf("hook at %d ran %d times; list %q, %v", at, ran, got, err)
		}
	}
}

func TestHooks_ErrorBecomesThatOfTheCall(t *testing.T) {
	errHook := errors.New("stop here")
	fails := func(context.Context, Call) error { return errHook }
	s, inner := setup(t, Rule{Op: Put, Do: Before(fails)}, Rule{Op: Put, Do: After(fails)})
	for i, effect := range []bool{false, true} {
		key := fmt.Sprint("hooked", i)
		if err := blob.PutBytes(t.Context(), s, key, nil); !errors.Is(err, errHook) {
			t.Errorf("Put = %v, want the hook's error", err)
		}
		if _, err := inner.Stat(t.Context(), key); (err == nil) != effect {
			t.Errorf("call %d had its effect: %v, want %t", i, err == nil, effect)
		}
	}
}

func TestGet_ClosesTheBodyOfALostReply(t *testing.T) {
	inner := &closeCounter{Store: mem.New()}
	if err := blob.PutBytes(t.Context(), inner, "k", []byte("x")); err != nil {
		t.Fatal(err)
	}
	s := New(inner, Rule{Op: Get, Do: FailAfter(nil)})
	if r, err := s.Get(t.Context(), "k", 0, -1); r != nil || !errors.Is(err, ErrInjected) {
		t.Errorf("Get = %v, %v", r, err)
	}
	if inner.opened.Load() != 1 || inner.closed.Load() != 1 {
		t.Errorf("%d bodies opened, %d closed", inner.opened.Load(), inner.closed.Load())
	}
}

type closeCounter struct {
	*mem.Store
	opened, closed atomic.Int32
}

func (s *closeCounter) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.Store.Get(ctx, key, offset, length)
	s.opened.Add(1)
	return closeFunc{r, func() { s.closed.Add(1) }}, err
}

type closeFunc struct {
	io.ReadCloser
	do func()
}

func (c closeFunc) Close() error { c.do(); return c.ReadCloser.Close() }

func TestRules_CountExactlyUnderConcurrentCalls(t *testing.T) {
	s, _ := setup(t, Rule{Op: Stat, Nth: 11, Count: 30, Do: Fail(nil)}, Rule{Op: GetRead, At: 5, Count: 40, Do: Flip()})
	var failed, flipped atomic.Int32
	var group sync.WaitGroup
	for range 100 {
		group.Go(func() {
			if _, err := s.Stat(t.Context(), "k/a"); err != nil {
				failed.Add(1)
			}
			if got, _ := read(t.Context(), s, "k/a", 0, -1); got != "0123456789" {
				flipped.Add(1)
			}
			s.Unused()
		})
	}
	group.Wait()
	if failed.Load() != 30 || flipped.Load() != 40 {
		t.Errorf("%d calls failed, %d were flipped; want 30 and 40", failed.Load(), flipped.Load())
	}
}

func TestNew_RefusesRulesThatCannotWork(t *testing.T) {
	for name, rule := range map[string]Rule{
		"no operation":        {Do: Fail(nil)},
		"unknown operation":   {Op: 1 << 7, Do: Fail(nil)},
		"no action":           {Op: Put},
		"flip of a put":       {Op: Put, Do: Flip()},
		"truncate of any":     {Op: Any, Do: Truncate()},
		"place of a put":      {Op: Put, At: 1, Do: Fail(nil)},
		"place of the end":    {Op: GetRead, At: 1, Do: FailAfter(nil)},
		"negative place":      {Op: GetRead, At: -1, Do: Fail(nil)},
		"negative nth":        {Op: Put, Nth: -1, Do: Fail(nil)},
		"count below forever": {Op: Put, Count: -2, Do: Fail(nil)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: New does not panic", name)
				}
			}()
			New(mem.New(), rule)
		}()
	}
}

func TestRule_StringTellsWhatItDoes(t *testing.T) {
	if got := (Rule{Name: "lost reply", Op: Put}).String(); got != "lost reply" {
		t.Errorf("String = %q", got)
	}
	if got := (Rule{Op: Put | GetRead, Nth: 2, Count: Forever, Do: Fail(nil)}).String(); got != "fail of put|read (nth 2, count -1, at 0)" {
		t.Errorf("String = %q", got)
	}
}
