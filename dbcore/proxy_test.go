package dbcore_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// cut says what a proxy does when it sees the trigger in a client's message.
type cut int

const (
	cutNothing cut = iota
	// cutRequest closes both sides and never passes the message on: the server does not run it.
	cutRequest
	// cutReply passes the message on, waits until the server has answered, and closes both sides without passing the
	// answer on: the server has run it.
	cutReply
	// holdReply passes the message on and nothing back, for ever.
	holdReply
	// holdRequest passes neither the message on nor anything back, for ever.
	holdRequest
	// loseClient passes the message on to nobody and keeps the server's side open when the client leaves, as a network
	// does that has lost the client without a word.
	loseClient
)

// proxy stands between a client and the test server, and breaks the connection at a chosen point.
type proxy struct {
	listener net.Listener
	trigger  []byte
	wg       sync.WaitGroup

	mu      sync.Mutex
	what    cut
	refused bool   // new connections are
	stays   bool   // armed for every hit
	hook    func() // called once the server has answered and before its answer is lost
	hits    int
	conns   []net.Conn
}

// newProxy starts a proxy that acts on messages of the simple and extended protocol that contain trigger.
func newProxy(t *testing.T, trigger string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, trigger: []byte(trigger)}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.closeAll(false)
		p.wg.Wait()
	})
	return p
}

func (p *proxy) config() dbcore.Config {
	cfg := socketConfig()
	cfg.Host, cfg.Port, cfg.SSLMode = "127.0.0.1", p.listener.Addr().(*net.TCPAddr).Port, "disable"
	return cfg
}

// set arms the proxy for one hit.
func (p *proxy) set(what cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.hits, p.stays, p.hook = what, 0, false, nil
}

// stay keeps the proxy armed after a hit.
func (p *proxy) stay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stays = true
}

// onCut has fn called between the server's answer and its loss.
func (p *proxy) onCut(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = fn
}

func (p *proxy) hit() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// refuse closes new connections at once.
func (p *proxy) refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = on
}

// closeAll breaks all connections; with reset both ends get a RST, so that the next write fails at once.
func (p *proxy) closeAll(reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
	p.conns = nil
}

// connected says whether this machine has a connection to the proxy whose end is still open for its client: a RST ends
// it before the client reads or writes. See proc_net_tcp in the kernel's documentation; state 01 is ESTABLISHED.
func (p *proxy) connected(t *testing.T) bool {
	sockets, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	remote := fmt.Sprintf(":%04X 01 ", p.listener.Addr().(*net.TCPAddr).Port)
	return bytes.Contains(sockets, []byte(remote))
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		refused := p.refused
		p.mu.Unlock()
		if refused {
			client.Close()
			continue
		}
		server, err := net.Dial("unix", fmt.Sprintf("%s/.s.PGSQL.%d", srv.socket, srv.port))
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		p.mu.Unlock()
		pair := &proxyPair{p: p, client: client, server: server, answered: make(chan struct{})}
		p.wg.Go(pair.forward)
		p.wg.Go(pair.back)
	}
}

type proxyPair struct {
	p              *proxy
	client, server net.Conn
	mu             sync.Mutex
	mute           bool
	keep           bool          // forward's own
	answered       chan struct{} // closed once the server's whole answer to a muted message has come
}

// forward passes on what the client sends, message by message.
func (c *proxyPair) forward() {
	defer c.client.Close()
	defer func() {
		if !c.keep {
			c.server.Close()
		}
	}()
	for first := true; ; first = false {
		header := 5
		if first {
			header = 4 // the startup message has no type
		}
		msg := make([]byte, header, 512)
		if _, err := io.ReadFull(c.client, msg); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(msg[header-4:])-4)
		if _, err := io.ReadFull(c.client, body); err != nil {
			return
		}
		msg = append(msg, body...)
		if !first && bytes.Contains(body, c.p.trigger) {
			if c.act(msg) {
				return
			}
			if c.keep {
				_, _ = io.Copy(io.Discard, c.client) // not even the farewell
			}
			continue
		}
		if _, err := c.server.Write(msg); err != nil {
			return
		}
	}
}

// act does what the proxy is armed for, and returns whether to break the connection.
func (c *proxyPair) act(msg []byte) (breakNow bool) {
	c.p.mu.Lock()
	what, hook := c.p.what, c.p.hook
	if !c.p.stays {
		c.p.what = cutNothing
	}
	c.p.hits++
	c.p.mu.Unlock()
	switch what {
	case cutRequest:
		return true
	case holdRequest, loseClient:
		c.keep = what == loseClient
		return false
	case cutReply, holdReply:
		c.mu.Lock()
		c.mute = true
		c.mu.Unlock()
	}
	_, err := c.server.Write(msg)
	if what == cutReply {
		// In the extended protocol the rest of the request is in the messages that follow.
		_ = c.client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = io.Copy(c.server, c.client)
		<-c.answered
		if hook != nil {
			hook()
		}
	}
	return err != nil || what == cutReply
}

// back passes on what the server sends, unless muted.
func (c *proxyPair) back() {
	defer c.client.Close()
	buf := make([]byte, 64<<10)
	var once sync.Once
	for {
		n, err := c.server.Read(buf)
		c.mu.Lock()
		mute := c.mute
		c.mu.Unlock()
		// ReadyForQuery ends an answer: type, length 5, status.
		if err != nil || mute && n >= 6 && buf[n-6] == 'Z' {
			once.Do(func() { close(c.answered) })
		}
		if err != nil {
			return
		}
		if !mute {
			if _, err := c.client.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}
