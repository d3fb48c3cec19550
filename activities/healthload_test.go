package activities

import (
	"context"
	"sync"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/health"
	"lifeboat/internal/pgtest"
)

// load writes like an application with quiet hours: bursts of small and large transactions, and pauses. It tells how many
// it committed.
func load(ctx context.Context, t *testing.T, conn *dbcore.Conn) (committed int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return committed
		case <-tick.C:
		}
		sql := "insert into busy select g, repeat('x', 100) from generate_series(1, 50) g"
		switch {
		case n%400 > 300: // a quiet hour
			continue
		case n%100 == 99:
			sql = "update busy set i = i + 1 where ctid in (select ctid from busy limit 5000)"
		case n%250 == 249:
			sql = "vacuum busy"
		}
		// The statement is not cut off by the end of the test: that would cost the connection.
		if _, err := conn.Exec(context.WithoutCancel(ctx), sql); err != nil {
			t.Errorf("%s: %v", sql, err)
			return committed
		}
		committed++
	}
}

// TestHealth_SteadyLoad: a sound server under load and in its pauses, with backups and verifications going on, makes no
// finding, not even one that is seen once. A quarter of a minute here; LIFEBOAT_TEST_SCALE=240 makes it an hour.
func TestHealth_SteadyLoad(t *testing.T) {
	s := newSick(t, 0)
	s.set.HealthLimits = health.DefaultLimits()
	s.set.HealthLimits.DiskShare = 0
	s.cluster.RPO = 5 * time.Minute
	s.Set(t, map[string]string{"fsync": "on", "autovacuum": "on"})
	s.Exec(t, "create table busy (i int, t text)")
	s.backup(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(pgtest.Scale(t))*15*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	committed := 0
	conn := s.session(t)
	wg.Go(func() { committed = load(ctx, t, conn) })
	wg.Go(func() {
		r, level := s.runner(), 1
		for i := 0; ctx.Err() == nil; i++ {
			_, err := r.TakeBackup(t.Context(), contract.TakeBackupInput{Cluster: "c1", Type: contract.TypeIncremental}, testRun())
			if err == nil && i%10 == 5 {
				_, err = r.VerifyBackups(t.Context(), contract.VerifyInput{Cluster: "c1", Level: &level}, testRun())
			}
			if err != nil {
				t.Error(err)
				return
			}
			select {
			case <-time.After(time.Duration(min(i, 120)) * time.Second):
			case <-ctx.Done():
			}
		}
	})
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	checks, most := 0, 0.0
	for ; ctx.Err() == nil; checks++ {
		res := s.check(t)
		if len(res.Findings) > 0 || len(res.NotLookedAt) > 0 || res.Verdict != contract.Pass {
			t.Errorf("check %d: %s, %+v, %+v", checks, res.Verdict, res.Findings, res.NotLookedAt)
		}
		if res.ExposureSeconds != nil {
			most = max(most, *res.ExposureSeconds)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	if checks < 3 || committed < 20 {
		t.Errorf("%d checks, %d commits: that proves nothing", checks, committed)
	}
	t.Logf("%d checks, %d commits, the exposure was at most %.1f s", checks, committed, most)
}
