package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// ports are the ports that the process listens on; 0 means that it does not.
type ports struct {
	frontend, http, metrics, ui int
	history, matching, worker   int
}

const loopback = "127.0.0.1"

// Free ports are looked for below the range from which Linux takes the source
// ports of outgoing connections (32768 on), so that between the look and the use
// no connection of some other program can come by one.
const (
	firstFreePort = 15000
	lastFreePort  = 31999
	freePortTries = 200
)

// portPicker holds each port that it gave until release, so that it gives none
// twice.
type portPicker struct {
	held []net.Listener
}

// take makes sure that nobody listens on the port.
func (p *portPicker) take(ip string, port int) error {
	l, err := net.Listen("tcp", hostPort(ip, port))
	if err != nil {
		return err
	}
	p.held = append(p.held, l)
	return nil
}

// free takes any port on which nobody listens.
func (p *portPicker) free(ip string) (int, error) {
	var err error
	for range freePortTries {
		port := firstFreePort + rand.IntN(lastFreePort-firstFreePort+1)
		if err = p.take(ip, port); err == nil {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port on %s: %w", ip, err)
}

// takeOrFree takes the port, or any free one if it is 0.
func (p *portPicker) takeOrFree(flagName, ip string, port int) (int, error) {
	if port == 0 {
		return p.free(ip)
	}
	if err := p.take(ip, port); err != nil {
		return 0, fmt.Errorf("%w (another server? choose another --%s)", err, flagName)
	}
	return port, nil
}

func (p *portPicker) release() {
	for _, l := range p.held {
		_ = l.Close() // a listener that nobody has connected to
	}
	p.held = nil
}

// choosePorts settles every port before anything is started, so that a port
// that is taken is an error with a name, not a crash in the middle of a start.
func choosePorts(o *options) (ports, error) {
	picker := &portPicker{}
	defer picker.release()

	var (
		ps   ports
		errs []error
	)
	set := func(to *int, flagName, ip string, port int) {
		var err error
		*to, err = picker.takeOrFree(flagName, ip, port)
		errs = append(errs, err)
	}
	set(&ps.frontend, "port", o.ip, o.port)
	set(&ps.http, "http-port", o.ip, o.httpPort)
	if o.metricsPort != 0 {
		set(&ps.metrics, "metrics-port", o.ip, o.metricsPort)
	}
	if !o.headless {
		set(&ps.ui, "ui-port", o.uiIP, uiPort(o, ps.frontend))
	}
	for _, to := range []*int{&ps.history, &ps.matching, &ps.worker} {
		set(to, "port", loopback, 0)
	}
	return ps, errors.Join(errs...)
}

// uiPort is the port to take for the UI: the one that was asked for, or the
// frontend's plus 1000 as in the Temporal command line tool, or 0 for any.
func uiPort(o *options, frontend int) int {
	if o.uiPortSet {
		return o.uiPort
	}
	usual := frontend + 1000
	if usual > 65535 {
		return 0
	}
	l, err := net.Listen("tcp", hostPort(o.uiIP, usual))
	if err != nil {
		return 0
	}
	_ = l.Close()
	return usual
}

// hostPort is an address to listen on.
func hostPort(ip string, port int) string {
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

// dialAddr is an address under which a listener on ip can be reached from this
// host: nobody can connect to 0.0.0.0.
func dialAddr(ip string, port int) string {
	if a, err := netip.ParseAddr(ip); err == nil && a.IsUnspecified() {
		ip = loopback
	}
	return hostPort(ip, port)
}
