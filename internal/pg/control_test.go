package pg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// controlFields renders every field that pg_controldata prints too, under its label.
func controlFields(c *ControlData) map[string]string {
	onOff := map[bool]string{true: "on", false: "off"}
	yesNo := map[bool]string{true: "yes", false: "no"}
	return map[string]string{
		"Database system identifier":           c.SystemID.String(),
		"pg_control version number":            strconv.Itoa(int(c.ControlVersion)),
		"Catalog version number":               strconv.Itoa(int(c.CatalogVersion)),
		"Database cluster state":               c.State.String(),
		"pg_control last modified":             c.Modified.Format(time.ANSIC),
		"Latest checkpoint location":           c.Checkpoint.LSN.String(),
		"Latest checkpoint's REDO location":    c.Checkpoint.Redo.String(),
		"Latest checkpoint's TimeLineID":       c.Checkpoint.Timeline.String(),
		"Latest checkpoint's PrevTimeLineID":   c.Checkpoint.PrevTimeline.String(),
		"Latest checkpoint's NextXID":          fmt.Sprintf("%d:%d", c.Checkpoint.NextXID>>32, uint32(c.Checkpoint.NextXID)),
		"Latest checkpoint's oldestXID":        strconv.Itoa(int(c.Checkpoint.OldestXID)),
		"Time of latest checkpoint":            c.Checkpoint.Time.Format(time.ANSIC),
		"Minimum recovery ending location":     c.MinRecoveryPoint.String(),
		"Min recovery ending loc's timeline":   c.MinRecoveryTimeline.String(),
		"Backup start location":                c.BackupStartPoint.String(),
		"Backup end location":                  c.BackupEndPoint.String(),
		"End-of-backup record required":        yesNo[c.BackupEndRequired],
		"wal_level setting":                    c.WALLevel.String(),
		"wal_log_hints setting":                onOff[c.WALLogHints],
		"max_connections setting":              strconv.Itoa(c.MaxConnections),
		"max_worker_processes setting":         strconv.Itoa(c.MaxWorkerProcesses),
		"max_wal_senders setting":              strconv.Itoa(c.MaxWALSenders),
		"max_prepared_xacts setting":           strconv.Itoa(c.MaxPreparedXacts),
		"max_locks_per_xact setting":           strconv.Itoa(c.MaxLocksPerXact),
		"track_commit_timestamp setting":       onOff[c.TrackCommitTimestamp],
		"Database block size":                  strconv.Itoa(int(c.BlockSize)),
		"Blocks per segment of large relation": strconv.Itoa(int(c.RelationSegBlocks)),
		"WAL block size":                       strconv.Itoa(int(c.WALBlockSize)),
		"Bytes per WAL segment":                strconv.Itoa(int(c.WALSegmentSize)),
		"Data page checksum version":           strconv.Itoa(int(c.DataChecksumVersion)),
	}
}

func compareControl(t *testing.T, c *cluster, when string) *ControlData {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.data, "global", "pg_control"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseControlFile(b)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	fields := controlFields(got)
	compared := 0
	for line := range strings.Lines(c.run("pg_controldata", "-D", c.data)) {
		label, value, _ := strings.Cut(line, ":")
		want, ok := fields[label]
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if ts, err := time.Parse("Mon Jan _2 15:04:05 2006", value); err == nil { // ANSIC pads with a blank
			value = ts.Format(time.ANSIC)
		} else if ts, err := time.Parse("Mon 02 Jan 2006 03:04:05 PM MST", value); err == nil {
			value = ts.Format(time.ANSIC)
		}
		if value != want {
			t.Errorf("%s: %s: parsed %q, pg_controldata says %q", when, label, want, value)
		}
		compared++
	}
	if compared != len(fields) {
		t.Errorf("%s: pg_controldata printed %d of the %d fields", when, compared, len(fields))
	}
	t.Logf("%s: %d fields agree with pg_controldata", when, compared)
	return got
}

func TestParseControlFile_AgreesWithPgControldata(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major, "--data-checksums", "--wal-segsize=4")
		got := compareControl(t, c, "after initdb")
		if got.Major != major {
			t.Errorf("catalogue version %d: major %d, want %d", got.CatalogVersion, got.Major, major)
		}
		// Every setting differs from its default and from the others.
		c.start("wal_level=logical", "wal_log_hints=on", "max_connections=37", "max_worker_processes=11",
			"max_wal_senders=13", "max_prepared_transactions=17", "max_locks_per_transaction=71")
		c.sql("create table t(i int); insert into t values (1); checkpoint")
		if got := compareControl(t, c, "in production"); got.State != StateInProduction || got.State.Stopped() {
			t.Errorf("state %s, want in production", got.State)
		}
		c.stop(syscall.SIGQUIT)
		if got := compareControl(t, c, "crashed"); got.State.Stopped() {
			t.Errorf("state %s counts as stopped after a crash", got.State)
		}
		c.start("track_commit_timestamp=on")
		c.stop(syscall.SIGINT)
		if got := compareControl(t, c, "shut down"); !got.State.Stopped() {
			t.Errorf("state %s, want shut down", got.State)
		}
	})
}

// A standby that began from an online backup has the recovery fields set.
func TestParseControlFile_OfStandby(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major)
		c.start("wal_level=replica")
		standby := *c
		standby.data = filepath.Join(c.root, "standby")
		c.run("pg_basebackup", "-h", c.root, "-U", "postgres", "-D", standby.data, "-X", "stream", "-c", "fast", "-R")
		c.stop(syscall.SIGINT) // the standby takes over the socket folder
		standby.start("hot_standby=on")
		got := compareControl(t, &standby, "standby")
		if got.State != StateInArchiveRecovery || got.MinRecoveryPoint == 0 || got.MinRecoveryTimeline != 1 {
			t.Errorf("state %s, minimum recovery point %s on %s: a standby has one", got.State, got.MinRecoveryPoint, got.MinRecoveryTimeline)
		}
		standby.stop(syscall.SIGINT)
		if got := compareControl(t, &standby, "standby, shut down"); got.State != StateShutDownInRecovery || !got.State.Stopped() {
			t.Errorf("state %s, want shut down in recovery", got.State)
		}
	})
}

// fakeControl builds a file of the given format with a right checksum.
func fakeControl(version, catalog uint32, mutate func([]byte)) []byte {
	b := make([]byte, ControlFileSize)
	le := binary.LittleEndian
	le.PutUint64(b, 7000000000000000001)
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], catalog)
	le.PutUint32(b[228:], uint32(DefaultSegmentSize))
	if mutate != nil {
		mutate(b)
	}
	at := 288
	if version == 1800 {
		at = 292
	}
	le.PutUint32(b[at:], crc32.Checksum(b[:at], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func TestParseControlFile_RefusesDamage(t *testing.T) {
	for _, f := range []struct{ version, catalog uint32 }{{1300, 202209061}, {1700, 202406281}, {1800, 202506291}} {
		good := fakeControl(f.version, f.catalog, nil)
		if _, err := ParseControlFile(good); err != nil {
			t.Fatalf("format %d: %v", f.version, err)
		}
		covered := map[uint32]int{1300: 292, 1700: 292, 1800: 296}[f.version]
		for at := range covered {
			if at >= 8 && at < 12 {
				continue // another format: an error, but not this one
			}
			b := append([]byte(nil), good...)
			b[at] ^= 1
			if _, err := ParseControlFile(b); !errors.Is(err, ErrControlCRC) {
				t.Fatalf("format %d, bit turned in byte %d: %v, want ErrControlCRC", f.version, at, err)
			}
		}
	}
}

func TestParseControlFile_RefusesForeignFiles(t *testing.T) {
	var unsupported *UnsupportedVersionError
	tests := []struct {
		name string
		file []byte
		ok   func(error) bool
	}{
		{"empty", nil, func(err error) bool { return errors.Is(err, ErrControlCRC) }},
		{"short", make([]byte, 295), func(err error) bool { return errors.Is(err, ErrControlCRC) }},
		{"zeroes", make([]byte, ControlFileSize), func(err error) bool { return errors.Is(err, ErrControlCRC) }},
		{"PostgreSQL 12", fakeControl(1201, 201909212, nil), func(err error) bool { return strings.Contains(err.Error(), "unknown format 1201") }},
		{"PostgreSQL 14", fakeControl(1300, 202107181, nil), func(err error) bool { return errors.As(err, &unsupported) }},
		{"big-endian", fakeControl(0x14050000, 0, nil), func(err error) bool { return strings.Contains(err.Error(), "byte order") }},
		{"segment size", fakeControl(1300, 202209061, func(b []byte) { b[228] = 1 }), func(err error) bool { return errors.Is(err, ErrSegmentSize) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if c, err := ParseControlFile(test.file); err == nil || !test.ok(err) {
				t.Errorf("got %+v, error %v", c, err)
			}
		})
	}
}
