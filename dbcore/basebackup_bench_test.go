package dbcore_test

import (
	"archive/tar"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// BenchmarkBaseBackup reads about 300 MB.
func BenchmarkBaseBackup(b *testing.B) {
	db := openDB(b, socketConfig())
	mustExec(b, db, `drop table if exists big;
		create unlogged table big_source as select string_agg(md5(g::text), '') s from generate_series(1, 60) g;
		create table big as select g, (select s from big_source) || g s from generate_series(1, 135000) g;
		drop table big_source`)
	defer mustExec(b, db, "drop table big")
	mustExec(b, db, "checkpoint")
	for name, read := range map[string]func(io.Reader) (int64, error){
		"discard": func(r io.Reader) (int64, error) {
			return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		},
		"tar": func(r io.Reader) (int64, error) {
			var sum int64
			buf := make([]byte, 256<<10)
			tr := tar.NewReader(r)
			for {
				h, err := tr.Next()
				if errors.Is(err, io.EOF) {
					_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf)
					return sum, err
				}
				if err != nil {
					return sum, err
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{tr}, buf)
				if err != nil || n != h.Size {
					return sum, errors.Join(err, io.ErrUnexpectedEOF)
				}
				sum += n
			}
		},
	} {
		plain := tcpConfig()
		plain.SSLMode = "disable"
		for where, cfg := range map[string]dbcore.Config{"socket": socketConfig(), "TCP": plain, "TLS": tcpConfig()} {
			b.Run(name+"/"+where, func(b *testing.B) {
				rc := connectReplication(b, cfg)
				began := cpuTime()
				defer func() { b.ReportMetric(float64(cpuTime()-began)/1e6/float64(b.N), "cpu-ms/op") }()
				for b.Loop() {
					n, err := readBackup(b, rc, read)
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(n)
				}
			})
		}
	}
}

// cpuTime is what this process has used; on a busy machine it says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func readBackup(b *testing.B, rc *dbcore.ReplicationConn, read func(io.Reader) (int64, error)) (int64, error) {
	s, err := rc.BaseBackup(b.Context(), dbcore.BaseBackupOptions{FastCheckpoint: true})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var sum int64
	for {
		_, err := s.Next(b.Context())
		if errors.Is(err, io.EOF) {
			_, err := s.Finish(b.Context())
			return sum, err
		}
		if err != nil {
			return sum, err
		}
		n, err := read(s)
		sum += n
		if err != nil {
			return sum, err
		}
	}
}
