package verify

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"lifeboat/internal/pginstance"
)

// exit is the error of a program that ends with a code.
func exit(t *testing.T, code string) error {
	t.Helper()
	return exec.CommandContext(t.Context(), "/bin/sh", "-c", "exit "+code).Run()
}

func TestJudge_KeepsFailedAndUnableApart(t *testing.T) {
	killed := exec.CommandContext(t.Context(), "/bin/sh", "-c", "kill -9 $$").Run()
	for _, tt := range []struct {
		name, id, output string
		err              error
		want             Outcome
	}{
		{"nothing wrong", "amcheck", "", nil, Passed},
		{"amcheck found something", "amcheck", "heap table ...", exit(t, "2"), Failed},
		{"amcheck could not connect", "amcheck", "connection refused", exit(t, "1"), Unable},
		{"a bad page", "checksums", `pg_checksums: error: checksum verification failed in file "x"`, exit(t, "1"), Failed},
		{"half a page", "checksums", `pg_checksums: error: could not read block 7 in file "x": read 100 of 8192`, exit(t, "1"), Failed},
		{"the server runs", "checksums", "pg_checksums: error: cluster must be shut down", exit(t, "1"), Unable},
		{"a file differs", "manifest", `pg_verifybackup: error: checksum mismatch for file "x"`, exit(t, "1"), Failed},
		{"a file is missing", "manifest", `pg_verifybackup: error: "x" is present in the manifest but not on disk`, exit(t, "1"), Failed},
		{"a wrong option", "manifest", `pg_verifybackup: hint: Try "pg_verifybackup --help" for more information.`, exit(t, "1"), Unable},
		{"a directory that may not be read", "manifest", "could not open directory: Permission denied", exit(t, "1"), Unable},
		{"killed", "manifest", "", killed, Unable},
		{"killed", "amcheck", "", killed, Unable},
		{"no such program", "manifest", "", exec.ErrNotFound, Unable},
		{"cancelled", "amcheck", "", context.Canceled, Unable},
	} {
		f := Finding{ID: tt.id}.judge(tt.output, tt.err)
		if f.Outcome != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.id, tt.name, f.Outcome, tt.want)
		}
		if f.Observed == "" {
			t.Errorf("%s %s: nothing is observed", tt.id, tt.name)
		}
	}
}

func TestChecks_WithoutTheirProgramAreUnable(t *testing.T) {
	owner, err := pginstance.LookupOwner("")
	if err != nil {
		t.Fatal(err)
	}
	none := pginstance.Binaries{Dir: "/nowhere", Major: 15}
	for _, f := range []Finding{
		Manifest(t.Context(), none, owner, "/tmp", nil), Checksums(t.Context(), none, owner, "/tmp", true),
	} {
		if f.Outcome != Unable || !strings.Contains(f.Observed, "/nowhere") {
			t.Errorf("%+v", f)
		}
	}
	if f := Checksums(t.Context(), none, owner, "/tmp", false); f.Outcome != Skipped {
		t.Errorf("checksums are off: %+v", f)
	}
}

func TestHead_KeepsTheBeginning(t *testing.T) {
	var h head
	line := strings.Repeat("x", 1000)
	for range 200 {
		if n, err := h.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if h.Len() != outputMost {
		t.Errorf("%d bytes are kept", h.Len())
	}
}

func TestText_AsPostgreSQLCasts(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{
		{nil, ""},
		{"x", "x"},
		{int64(-7), "-7"},
		{true, "true"},
		{1000000.0, "1000000"},
		{1e15, "1e+15"},
		{0.0001, "0.0001"},
		{0.00001, "1e-05"},
		{0.1, "0.1"},
		{float32(0.1), "0.1"},
		{float32(1e6), "1e+06"},
	} {
		if got, err := text(tt.in); got != tt.want || err != nil {
			t.Errorf("%v: %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	if _, err := text([]any{1}); !errors.Is(err, errNoText) {
		t.Errorf("an array: %v", err)
	}
}
