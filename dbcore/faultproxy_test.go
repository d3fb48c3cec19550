package dbcore_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// point is where on its way a request is when a trap springs.
type point int

const (
	// atRequest: the whole request has come from the client, nothing was passed on.
	atRequest point = iota
	// atSent: the request was passed on. What the server does with it is open.
	atSent
	// atReply: the server's whole reply has come: a COMMIT is committed. Nothing was passed on.
	atReply
)

// trap is a fault for one request of one call: the startup of a connection, or a statement. It springs once.
type trap struct {
	at point
	// reset ends the client's connection by RST, not by FIN.
	reset bool
	// part, from 0 to 1, is how much of the reply is passed on before the cut.
	part float64
	// stall is a silence before the cut.
	stall time.Duration
	// late keeps the request until the client has given up, and only then passes it on.
	late bool
	// passOn goes on as if nothing was, once meanwhile has returned: the fault is what meanwhile does.
	passOn bool
	// withoutReady takes ReadyForQuery off the reply.
	withoutReady bool
	// meanwhile runs while the request or the reply is held. pid is the server's process, 0 if not known yet.
	meanwhile func(pid uint32)

	sprung atomic.Bool
}

func (t *trap) spring(l *link) {
	t.sprung.Store(true)
	if t.meanwhile != nil {
		l.p.springing.Add(1)
		defer l.p.springing.Add(-1)
		t.meanwhile(l.pid())
	}
}

// faultProxy stands between clients and a server, understands requests and replies, and springs the traps that it is
// given for connections (by application_name) and for statements (by the process id of the session).
type faultProxy struct {
	listener net.Listener
	target   atomic.Pointer[string] // the server's unix socket
	wg       sync.WaitGroup
	// springing counts the traps whose meanwhile runs.
	springing atomic.Int64

	mu     sync.Mutex
	closed bool
	links  map[*link]struct{}
	byPID  map[uint32]*link
	starts map[string]*trap
}

func newFaultProxy(t testing.TB, socket string) *faultProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &faultProxy{listener: l, links: map[*link]struct{}{}, byPID: map[uint32]*link{}, starts: map[string]*trap{}}
	p.target.Store(&socket)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.cutAll()
		p.wg.Wait()
	})
	return p
}

func (p *faultProxy) port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// cutAll breaks all connections, and those to come once the proxy is closed.
func (p *faultProxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for l := range p.links {
		l.client.Close()
		if l.server != nil {
			l.server.Close()
		}
	}
}

// armStart sets a trap for the next startup of a connection with this application_name.
func (p *faultProxy) armStart(application string, t *trap) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starts[application] = t
}

func (p *faultProxy) takeStart(application string) *trap {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.starts[application]
	delete(p.starts, application)
	return t
}

// arm sets a trap for the next statement that is executed by the session with this pid; nil disarms.
func (p *faultProxy) arm(pid uint32, t *trap) {
	p.mu.Lock()
	l := p.byPID[pid]
	p.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		l.armed = t
		l.mu.Unlock()
	}
}

func (p *faultProxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			l := &link{p: p, client: client, server: nil, answered: make(chan struct{}, 1)}
			defer l.cut(false)
			p.mu.Lock()
			closed := p.closed
			p.links[l] = struct{}{}
			p.mu.Unlock()
			if !closed {
				l.run()
			}
		})
	}
}

// link is one connection through the proxy.
type link struct {
	p              *faultProxy
	client, server net.Conn // server is set once, under p.mu
	answered       chan struct{}

	mu      sync.Mutex
	process uint32
	armed   *trap
	muted   bool
	reply   []byte // of the server while muted
	ended   bool   // the server has hung up
}

func (l *link) pid() uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.process
}

// take returns the trap for a request that executes something.
func (l *link) take() *trap {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.armed
	l.armed = nil
	return t
}

// mute keeps what the server sends from the client.
func (l *link) mute() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.muted, l.reply = true, nil
}

func (l *link) cut(reset bool) {
	if tcp, ok := l.client.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	l.client.Close()
	pid := l.pid()
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.server != nil {
		l.server.Close()
	}
	delete(l.p.links, l)
	if l.p.byPID[pid] == l {
		delete(l.p.byPID, pid)
	}
}

// dial connects to the server. A server that is not there resets the client, as a closed port does.
func (l *link) dial() bool {
	server, err := net.Dial("unix", *l.p.target.Load())
	if err != nil {
		l.cut(true)
		return false
	}
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.server = server
	if l.p.closed {
		server.Close()
	}
	return true
}

const cancelCode = 80877102

// run passes requests on, the startup first.
func (l *link) run() {
	r := bufio.NewReader(l.client)
	startup, err := readMessage(r, 4)
	if err != nil || !l.dial() {
		return
	}
	if binary.BigEndian.Uint32(startup[4:]) == cancelCode {
		_, _ = l.server.Write(startup)
		_, _ = io.Copy(io.Discard, l.server)
		return
	}
	l.p.wg.Go(l.back)
	if !l.pass(r, startup, l.p.takeStart(startupParameter(startup, "application_name"))) {
		return
	}
	for {
		request, executes, err := readRequest(r)
		if err != nil {
			return
		}
		var t *trap
		if executes {
			t = l.take()
		}
		if !l.pass(r, request, t) {
			return
		}
	}
}

// pass passes one request on, unless a trap has other plans. It returns whether the connection goes on.
func (l *link) pass(r *bufio.Reader, request []byte, t *trap) bool {
	if t == nil {
		_, err := l.server.Write(request)
		return err == nil
	}
	if t.at == atRequest {
		return l.holdRequest(r, request, t)
	}
	if t.at == atReply || !t.passOn {
		l.mute()
	}
	if _, err := l.server.Write(request); err != nil {
		return false
	}
	if t.at == atReply {
		<-l.answered // also when the server has hung up
	}
	t.spring(l)
	if t.passOn {
		return l.unmute(t)
	}
	l.passPart(t.part)
	l.silence(t.stall)
	l.cut(t.reset)
	return false
}

// holdRequest springs a trap before the request is passed on.
func (l *link) holdRequest(r *bufio.Reader, request []byte, t *trap) bool {
	if !t.passOn {
		l.mute()
	}
	t.spring(l)
	switch {
	case t.late:
		// pgx says Terminate when its caller gives up, and waits a while for the server to hang up.
		_ = l.client.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = readMessage(r, 5)
		if _, err := l.server.Write(request); err == nil {
			<-l.answered
		}
	case t.passOn:
		_, err := l.server.Write(request)
		return err == nil
	default:
		l.silence(t.stall)
	}
	l.cut(t.reset)
	return false
}

// silence waits. A client that hangs up meanwhile does not shorten it.
func (l *link) silence(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// passPart passes on a part of the reply, at least a byte and never all of it.
func (l *link) passPart(part float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.reply); part > 0 && n > 1 {
		_, _ = l.client.Write(l.reply[:min(n-1, 1+int(part*float64(n-1)))])
	}
}

const readyLength = 6 // type, length, status

// unmute passes on what was kept, and goes on.
func (l *link) unmute(t *trap) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.muted {
		return true
	}
	reply := l.reply
	if t.withoutReady {
		if i := strings.LastIndex(string(reply), "Z\x00\x00\x00\x05"); i >= 0 {
			reply = append(reply[:i:i], reply[i+readyLength:]...)
		}
	}
	l.muted, l.reply = false, nil
	_, err := l.client.Write(reply)
	return err == nil && !l.ended
}

// back passes replies on, or keeps them while muted.
func (l *link) back() {
	r := bufio.NewReader(l.server)
	for {
		message, err := readMessage(r, 5)
		if err != nil {
			break
		}
		if message[0] == 'K' {
			l.started(binary.BigEndian.Uint32(message[5:]))
		}
		if !l.deliver(message) {
			break
		}
	}
	l.mu.Lock()
	l.ended = true
	muted := l.muted
	l.mu.Unlock()
	l.answer()
	if !muted { // a held connection is cut by whoever holds it
		l.client.Close()
	}
}

func (l *link) started(pid uint32) {
	l.mu.Lock()
	l.process = pid
	l.mu.Unlock()
	l.p.mu.Lock()
	l.p.byPID[pid] = l
	l.p.mu.Unlock()
}

func (l *link) deliver(message []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.muted {
		l.reply = append(l.reply, message...)
		if message[0] == 'Z' {
			l.answer()
		}
		return true
	}
	_, err := l.client.Write(message)
	return err == nil
}

// answer says that the whole reply is there, or that none will come.
func (l *link) answer() {
	select {
	case l.answered <- struct{}{}:
	default:
	}
}

// config reaches the server through the proxy.
func (p *faultProxy) config(user string) dbcore.Config {
	cfg := dbcore.DefaultConfig()
	cfg.Host, cfg.Port, cfg.User, cfg.DBName, cfg.SSLMode = "127.0.0.1", p.port(), user, "postgres", "disable"
	return cfg
}
