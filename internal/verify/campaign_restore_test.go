package verify_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// needed are the kinds without whose object the second backup, the first, or both cannot be restored to the newest state.
var needed = map[string][2]bool{
	"header": {true, true}, "identity": {true, true}, "timeline history file": {true, true},
	"manifest": {false, true}, "data pack": {false, true}, "tree pack": {false, true}, "WAL segment": {true, false},
}

// testRestores restores both backups with each needed object spoiled in the middle, and then with one of every other
// kind spoiled at once.
func (c *campaign) testRestores(t *testing.T) {
	var others []*victim
	for _, v := range c.victims {
		need, ok := needed[v.kind]
		if !ok {
			others = append(others, v)
			continue
		}
		t.Run(v.kind, func(t *testing.T) {
			defer c.put(t, v.key, v.sound)
			c.put(t, v.key, spoilMiddle(v))
			for i, m := range c.backups {
				v.restore = append(v.restore, c.restored(t, m, need[i]))
			}
			if v.kind == "manifest" {
				c.passedOver(t, v)
			}
		})
	}
	t.Run("what no restore needs", func(t *testing.T) {
		for _, v := range others {
			defer c.put(t, v.key, v.sound)
			c.put(t, v.key, spoilMiddle(v))
		}
		reports := c.verified(t, "many at once")
		for i, m := range c.backups {
			if r := of(t, reports, m); r.Outcome() != verify.Passed {
				t.Errorf("no restore needs what was spoiled: %s", text(reports...))
			}
			what := c.restored(t, m, false)
			for _, v := range others {
				v.restore = append(v.restore, what)
				if i == 0 && !names(reports, v.key) {
					t.Errorf("%s is not named among many: %s", v.key, text(reports...))
				}
			}
		}
	})
}

// passedOver plans without naming a backup: one whose manifest is damaged keeps nobody from the other, and is told of.
func (c *campaign) passedOver(t *testing.T, v *victim) {
	t.Helper()
	dir := filepath.Join(pgtest.TempDir(t), "restored")
	plan, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{Repo: c.reopen(t), Cluster: cluster, TargetDir: dir})
	if err != nil || plan.BackupID != c.backups[0].BackupID || len(plan.Warnings) != 1 || !strings.Contains(plan.Warnings[0], v.key) || plan.Check() != nil {
		t.Errorf("a plan with a damaged manifest: %v, %+v", err, plan)
	}
}

// spoilMiddle fills the middle third with zeros. One byte would do; but whatever of a pack a restore reads must be hit.
func spoilMiddle(v *victim) []byte {
	data := append([]byte{}, v.sound...)
	clear(data[len(data)/3 : len(data)*2/3])
	return data
}

// restored restores a backup to the newest state. Where it must fail it leaves nothing that runs or could be started;
// else the rows are those of the source.
func (c *campaign) restored(t *testing.T, m *repo.Manifest, mustFail bool) string {
	t.Helper()
	dir := filepath.Join(pgtest.TempDir(t), "restored")
	server, step, err := c.tryRestore(t, m, dir)
	if server != nil {
		defer func() { _ = server.Instance.Stop(context.Background(), pginstance.Immediate) }()
	}
	if (err != nil) != mustFail {
		t.Errorf("backup %s: %s: error is %v, must fail: %v", m.BackupID, step, err, mustFail)
	}
	if err == nil {
		conn, err := server.Connect(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if rows, err := dbcore.One[string](t.Context(), conn, rowHash); err != nil || rows != c.rows {
			t.Errorf("backup %s was restored with other rows: %s, want %s (%v)", m.BackupID, rows, c.rows, err)
		}
		return "equal"
	}
	c.mustNotStart(t, dir)
	return "refused by " + step
}

func (c *campaign) tryRestore(t *testing.T, m *repo.Manifest, dir string) (*recovery.Server, string, error) {
	t.Helper()
	r, err := c.open(t)
	if err != nil {
		return nil, "open", err
	}
	plan, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{Repo: r, Cluster: cluster, TargetDir: dir, Backup: m.BackupID})
	if err != nil {
		return nil, "plan", err
	}
	if _, err := recovery.Lay(t.Context(), plan, recovery.LayOptions{Repo: r, FetchCommand: c.fetch}); err != nil {
		if _, serr := os.Stat(filepath.Join(dir, "global/pg_control")); !errors.Is(serr, os.ErrNotExist) {
			t.Errorf("a restore that failed left pg_control: %v", serr)
		}
		return nil, "lay", err
	}
	s, err := recovery.Start(t.Context(), plan, recovery.StartOptions{SocketOnly: true})
	return s, "replay", err
}

// mustNotStart starts the server by hand, as somebody in haste would, on what a failed restore left.
func (c *campaign) mustNotStart(t *testing.T, dir string) {
	t.Helper()
	if list, err := pginstance.Running(dir); err != nil || len(list) > 0 {
		t.Errorf("a server runs: %v, %v", list, err)
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Bin.Path("pg_ctl"), "start", "-D", dir, "-w", "-t", "60", "-s", "-l", filepath.Join(c.Dir, "by-hand.log"),
		"-o", "-c listen_addresses='' -c unix_socket_directories="+c.SocketDir)
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		log, _ := os.ReadFile(filepath.Join(c.Dir, "by-hand.log"))
		t.Errorf("what the failed restore left was started: %v, %s\n%s", err, out, log)
		stop := exec.CommandContext(context.WithoutCancel(ctx), c.Bin.Path("pg_ctl"), "stop", "-D", dir, "-m", "immediate")
		stop.SysProcAttr = pgtest.Owner(t).SysProcAttr()
		_ = stop.Run()
	}
	if strings.Contains(string(out), "could not access directory") {
		t.Errorf("pg_ctl could not even look: %s", out)
	}
}
