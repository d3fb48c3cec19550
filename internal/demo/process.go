package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/pginstance"
)

// process is a child of the demo. Unless it is to be kept, it dies with the demo, however that ends.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

// spawn starts a program as the servers' user, its output going to a log file.
func (d *demo) spawn(name string, env []string, path string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(d.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Env = d.dir, append(d.environment(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = d.owner.SysProcAttr()
	if d.keeps() {
		p.cmd.SysProcAttr.Setsid, p.cmd.SysProcAttr.Setpgid = true, false
	} else {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the parent-death signal when the thread that started the child ends, so it must last.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	d.processes = append(d.processes, p)
	return p, nil
}

// environment is what children get: nothing of the caller's settings but where Temporal is.
func (d *demo) environment() []string {
	env := []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + d.dir, "LC_ALL=C.UTF-8", "TZ=UTC",
		"LIFEBOAT_CONFIG=" + d.config,
	}
	if d.temporal != "" {
		env = append(env, "TEMPORAL_ADDRESS="+d.temporal)
	}
	if d.ui != "" {
		env = append(env, "TEMPORAL_UI_ADDRESS="+d.ui)
	}
	return env
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends a process, politely at first.
func (p *process) stop() {
	if p.ended() {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.kill()
	}
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// waitFor waits until ready says so, the process ends, or time is up.
func (p *process) waitFor(ctx context.Context, what string, ready func() bool) error {
	deadline := time.Now().Add(startTimeout)
	for !ready() {
		switch {
		case p.ended():
			return fmt.Errorf("%s ended before %s: %w\n%s", p.name, what, p.err, tail(p.log))
		case time.Now().After(deadline):
			return fmt.Errorf("%s: %s took longer than %v\n%s", p.name, what, startTimeout, tail(p.log))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// logHas tells whether the log holds a text.
func (p *process) logHas(text string) func() bool {
	return func() bool {
		data, err := os.ReadFile(p.log)
		return err == nil && strings.Contains(string(data), text)
	}
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// listening tells whether somebody accepts connections there.
func listening(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// startTemporal starts the embedded server and UI on free ports of loopback.
func (d *demo) startTemporal(ctx context.Context) error {
	if d.opts.TemporalAddress != "" {
		d.temporal = d.opts.TemporalAddress
		d.say("Temporal runs at %s already", d.temporal)
		return nil
	}
	port, err := pginstance.FreePort()
	if err != nil {
		return err
	}
	uiPort, err := pginstance.FreePort()
	if err != nil {
		return err
	}
	args := []string{
		"server", "start-dev", "--ip", "127.0.0.1", "--port", fmt.Sprint(port), "--ui-port", fmt.Sprint(uiPort),
		"--db-filename", filepath.Join(d.dir, "temporal.db"), "--log-level", "error",
	}
	for _, name := range attributes {
		args = append(args, "--search-attribute", name+"=Keyword")
	}
	p, err := d.spawn("temporal", nil, filepath.Join(d.dir, "bin", "temporal-server"), args...)
	if err != nil {
		return err
	}
	address, ui := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", uiPort)
	if err := p.waitFor(ctx, "it was ready", func() bool { return listening(address) && listening(ui) }); err != nil {
		return err
	}
	d.temporal, d.ui = address, "http://"+ui
	d.ports = append(d.ports, address, ui)
	d.say("Temporal is up at %s, its UI at %s", d.temporal, d.ui)
	return nil
}

func (d *demo) startWorker(ctx context.Context) (*process, error) {
	d.workers++
	p, err := d.spawn(fmt.Sprintf("worker-%d", d.workers), nil, filepath.Join(d.dir, "bin", "lifeboat-worker"),
		"--work-dir", filepath.Join(d.dir, "work"))
	if err != nil {
		return nil, err
	}
	if err := p.waitFor(ctx, "it was ready", p.logHas("worker ready")); err != nil {
		return nil, err
	}
	d.say("worker %d is up (pid %d)", d.workers, p.cmd.Process.Pid)
	return p, nil
}

// copyProgram copies a program to where the servers' user can run it.
func copyProgram(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	if err := errors.Join(os.WriteFile(to, data, 0o755), os.Chmod(to, 0o755)); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}
