package main

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// occupied is a port on which the test listens.
func occupied(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestChoosePorts(t *testing.T) {
	ps, err := choosePorts(&options{ip: loopback, uiIP: loopback})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range []int{ps.frontend, ps.http, ps.ui, ps.history, ps.matching, ps.worker} {
		if p == 0 || seen[p] {
			t.Errorf("port %d is no port or given twice: %+v", p, ps)
		}
		seen[p] = true
	}
	if ps.metrics != 0 {
		t.Errorf("metrics on port %d, though none were asked for", ps.metrics)
	}
	if ps.ui != ps.frontend+1000 {
		t.Errorf("web UI on port %d, want %d", ps.ui, ps.frontend+1000)
	}
}

func TestChoosePortsHeadless(t *testing.T) {
	ps, err := choosePorts(&options{ip: loopback, uiIP: loopback, headless: true, uiPort: occupied(t), uiPortSet: true})
	if err != nil || ps.ui != 0 {
		t.Errorf("ports %+v, %v; want none for the UI and no error", ps, err)
	}
}

// TestUsualUIPort: the port that nobody asked for gives way, the one that
// somebody asked for does not.
func TestUsualUIPort(t *testing.T) {
	taken := occupied(t)
	if got := uiPort(&options{uiIP: loopback}, taken-1000); got != 0 {
		t.Errorf("port %d is proposed, want 0: %d is taken", got, taken)
	}
	if got := uiPort(&options{uiIP: loopback}, 65000); got != 0 {
		t.Errorf("port %d is proposed for 65000, want 0", got)
	}
	_, err := choosePorts(&options{ip: loopback, uiIP: loopback, uiPort: taken, uiPortSet: true})
	if err == nil || !strings.Contains(err.Error(), "--ui-port") {
		t.Errorf("taken port: %v, want an error that names --ui-port", err)
	}
}

func TestDialAddr(t *testing.T) {
	for _, tc := range []struct{ ip, want string }{
		{"127.0.0.1", "127.0.0.1:7"},
		{"0.0.0.0", "127.0.0.1:7"},
		{"::", "127.0.0.1:7"},
		{"::1", "[::1]:7"},
		{"192.0.2.1", "192.0.2.1:7"},
	} {
		if got := dialAddr(tc.ip, 7); got != tc.want {
			t.Errorf("dialAddr(%s) = %s, want %s", tc.ip, got, tc.want)
		}
	}
}
