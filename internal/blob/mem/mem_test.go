package mem

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/blobtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore_KeepsContract(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return New() })
}

func TestStore_RefusesKeysThatPOSIXCannotHoldTogether(t *testing.T) {
	for _, c := range []struct{ first, second string }{{"a", "a/b"}, {"a", "a/b/c"}, {"a/b", "a"}, {"a/b/c", "a/b"}, {"a/b/c", "a"}} {
		s := New()
		if err := blob.PutBytes(t.Context(), s, c.first, nil); err != nil {
			t.Fatal(err)
		}
		if err := blob.PutBytes(t.Context(), s, c.second, nil); !errors.Is(err, blob.ErrInvalidKey) {
			t.Errorf("Put(%q) beside %q: %v; want ErrInvalidKey", c.second, c.first, err)
		}
		if err := blob.PutBytesIfAbsent(t.Context(), s, c.second, nil); !errors.Is(err, blob.ErrInvalidKey) {
			t.Errorf("PutIfAbsent(%q) beside %q: %v; want ErrInvalidKey", c.second, c.first, err)
		}
		// Replacing must not count the folders twice: after one Delete they are gone.
		if err := blob.PutBytes(t.Context(), s, c.first, []byte("again")); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), c.first); err != nil {
			t.Fatal(err)
		}
		if err := blob.PutBytes(t.Context(), s, c.second, nil); err != nil {
			t.Errorf("Put(%q) after %q was deleted: %v", c.second, c.first, err)
		}
	}
}

func TestNewWithClock_GivesModTime(t *testing.T) {
	now := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	s := NewWithClock(func() time.Time { return now })
	for range 2 {
		if err := blob.PutBytes(t.Context(), s, "k", nil); err != nil {
			t.Fatal(err)
		}
		if info, err := s.Stat(t.Context(), "k"); err != nil || !info.ModTime.Equal(now) {
			t.Errorf("Stat = %+v, %v; want time %v", info, err, now)
		}
		now = now.Add(time.Hour)
	}
}

func TestPut_DoesNotBelieveAHugeSize(t *testing.T) {
	err := New().Put(t.Context(), "k", emptyBody{}, 1<<60)
	if err == nil {
		t.Error("Put of a body that is shorter than its size succeeded")
	}
}

type emptyBody struct{}

func (emptyBody) ReadAt([]byte, int64) (int, error) { return 0, errors.New("nothing here") }
