package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
)

// cluster is the name under which the demo's server is protected.
const cluster = "demo"

var attributes = contract.Attributes()

// demo is one run.
type demo struct {
	opts  Options
	dir   string
	owner pginstance.Owner
	begin time.Time

	config, temporal, ui string
	server               *pginstance.Instance
	processes            []*process
	workers              int
	ports                []string
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.opts.Out, "[%5.1fs] %s\n", time.Since(d.begin).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) keeps() bool { return d.opts.Keep || d.opts.StackOnly }

// Run runs the demo. It returns nil only if the drill's verdict is PASS and, unless kept, nothing is left behind.
func Run(ctx context.Context, opts Options) (err error) {
	d := &demo{opts: opts, begin: time.Now()}
	if d.opts.Rows <= 0 {
		d.opts.Rows = 200_000
	}
	if d.owner, err = pginstance.LookupOwner(""); err != nil {
		return err
	}
	if err := d.makeDir(); err != nil {
		return err
	}
	up := false
	defer func() {
		if up && d.keeps() && err == nil {
			err = d.leaveUp()
			return
		}
		err = errors.Join(err, d.tearDown())
	}()
	if err := d.stack(ctx); err != nil {
		return err
	}
	up = true
	if opts.StackOnly {
		return nil
	}
	return d.accident(ctx)
}

// makeDir makes the folder of everything: short, because sockets live below it, and open to the servers' user.
func (d *demo) makeDir() error {
	dir, err := os.MkdirTemp("/tmp", "lifeboat-demo-")
	if err != nil {
		return fmt.Errorf("make the demo's folder: %w", err)
	}
	d.dir = dir
	err = errors.Join(os.Chmod(dir, 0o755), d.owner.Chown(dir))
	for _, sub := range []string{"bin", "repository", "work", "socket"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, sub), 0o755), d.owner.Chown(filepath.Join(dir, sub)))
	}
	err = errors.Join(err, copyProgram(d.opts.Lifeboat, filepath.Join(dir, "bin", "lifeboat")),
		copyProgram(d.opts.Worker, filepath.Join(dir, "bin", "lifeboat-worker")))
	if d.opts.TemporalAddress == "" {
		err = errors.Join(err, copyProgram(d.opts.TemporalServer, filepath.Join(dir, "bin", "temporal-server")))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("prepare the demo's folder: %w", err), os.RemoveAll(dir))
	}
	return nil
}

// stack starts server, Temporal and worker, loads data, and takes a backup under load.
func (d *demo) stack(ctx context.Context) error {
	if err := d.startServer(ctx); err != nil {
		return err
	}
	if err := d.startTemporal(ctx); err != nil {
		return err
	}
	if _, err := d.startWorker(ctx); err != nil {
		return err
	}
	load, err := d.startLoad(ctx)
	if err != nil {
		return err
	}
	defer load.stop()
	var backup contract.BackupResult
	if err := d.lifeboat(ctx, &backup, "backup", cluster); err != nil {
		return err
	}
	d.say("backup %s: %.1f MB in %.1f s, %.1f MB stored, while %d rows were written",
		backup.BackupID, mb(backup.SourceBytes), backup.Seconds, mb(backup.StoredBytes), load.written.Load())
	return load.failed()
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// startServer makes the cluster that will have the accident.
func (d *demo) startServer(ctx context.Context) error {
	bin, err := d.binaries()
	if err != nil {
		return err
	}
	data := filepath.Join(d.dir, "data")
	if err := pginstance.InitDB(ctx, pginstance.InitOptions{Binaries: bin, DataDir: data, Checksums: true, Superuser: "postgres"}); err != nil {
		return err
	}
	d.config = filepath.Join(d.dir, "lifeboat.yaml")
	socket := filepath.Join(d.dir, "socket")
	port, err := pginstance.FreePort()
	if err != nil {
		return err
	}
	yaml := fmt.Sprintf(`version: 1
repositories:
  main: {url: "file://%s/repository"}
clusters:
  demo:
    dsn: "host=%s port=%d user=postgres dbname=postgres"
    repository: main
    objectives: {rto: 1h, rpo: 15m}
`, d.dir, socket, port)
	if err := errors.Join(os.WriteFile(d.config, []byte(yaml), 0o644), os.Chmod(d.config, 0o644)); err != nil {
		return fmt.Errorf("write the demo's configuration: %w", err)
	}
	d.server, err = pginstance.Start(ctx, pginstance.Options{
		Binaries: bin, DataDir: data, Port: port, SocketDir: socket, SocketOnly: true,
		LogFile: filepath.Join(d.dir, "postgres.log"), Detached: d.keeps(), Settings: map[string]string{
			"archive_mode": "on", "archive_timeout": "10s", "wal_level": "replica", "track_commit_timestamp": "on",
			"archive_command": filepath.Join(d.dir, "bin", "lifeboat") + " wal-push %p --cluster demo --config " + d.config,
		},
	})
	if err != nil {
		return err
	}
	if _, err := d.server.WaitReady(ctx, pginstance.Promoted); err != nil {
		return err
	}
	d.say("PostgreSQL %d is up in %s (pid %d), archiving by `lifeboat wal-push`", bin.Major, data, d.server.PID())
	return nil
}

func (d *demo) binaries() (pginstance.Binaries, error) {
	if d.opts.Major != 0 {
		return pginstance.FindBinaries(d.opts.Major, d.opts.BinDirs)
	}
	all := pginstance.Installed(d.opts.BinDirs)
	if len(all) == 0 {
		return pginstance.FindBinaries(15, d.opts.BinDirs) // for its error, which says what to install
	}
	return all[len(all)-1], nil
}

func (d *demo) connect(ctx context.Context) (*dbcore.DB, error) {
	cfg, err := dbcore.ParseDSN(d.server.ConnString("postgres", "postgres"))
	if err != nil {
		return nil, err
	}
	return dbcore.Open(ctx, cfg)
}

// leaveUp records what runs, so that Stop can end it, and tells how to reach it.
func (d *demo) leaveUp() error {
	s := state{Dir: d.dir, DataDir: d.server.DataDir()}
	for _, p := range d.processes {
		if !p.ended() {
			s.PIDs = append(s.PIDs, p.cmd.Process.Pid)
		}
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(d.dir, stateFile), data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("record what is left up: %w", err)
	}
	d.say("left up, until `make demo-stop`:")
	fmt.Fprintf(d.opts.Out, "  Temporal UI      %s\n  Temporal         TEMPORAL_ADDRESS=%s\n  configuration    LIFEBOAT_CONFIG=%s\n  programs         %s/bin\n  PostgreSQL       %s\n",
		d.ui, d.temporal, d.config, d.dir, d.server.ConnString("postgres", "postgres"))
	return nil
}

// tearDown stops and removes everything, and fails if something is left.
func (d *demo) tearDown() error {
	for i := len(d.processes) - 1; i >= 0; i-- {
		d.processes[i].stop()
	}
	var err error
	if d.server != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = d.server.Stop(ctx, pginstance.Immediate)
	}
	err = errors.Join(err, d.nothingLeft())
	if rerr := os.RemoveAll(d.dir); rerr != nil {
		err = errors.Join(err, fmt.Errorf("remove the demo's folder: %w", rerr))
	}
	return err
}

// nothingLeft looks for servers below the demo's folder, and for its ports.
func (d *demo) nothingLeft() error {
	var err error
	running, rerr := pginstance.Running(d.dir)
	if rerr != nil {
		err = rerr
	}
	for _, p := range running {
		err = errors.Join(err, fmt.Errorf("a PostgreSQL server was left behind: %+v", p))
	}
	for _, address := range d.ports {
		if listening(address) {
			err = errors.Join(err, fmt.Errorf("somebody still listens at %s", address))
		}
	}
	entries, rerr := os.ReadDir(filepath.Join(d.dir, "work"))
	for _, e := range entries {
		err = errors.Join(err, fmt.Errorf("a drill left its folder %s behind", e.Name()))
	}
	return errors.Join(err, rerr)
}
