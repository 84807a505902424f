package accept

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nats-trusted-proxy/server/trust"
)

// patience is how long a test waits for what has to come.
const patience = 20 * time.Second

// eventually waits for something that is polled.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// recorder is a log that can be looked at.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) add(level, format string, v []any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, level+" "+fmt.Sprintf(format, v...))
}

func (r *recorder) Warnf(format string, v ...any)  { r.add("WRN", format, v) }
func (r *recorder) Errorf(format string, v ...any) { r.add("ERR", format, v) }
func (r *recorder) Debugf(format string, v ...any) { r.add("DBG", format, v) }

// find returns the lines of a level that have all the parts.
func (r *recorder) find(level string, parts ...string) (found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
next:
	for _, line := range r.lines {
		if !strings.HasPrefix(line, level+" ") {
			continue
		}
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func (r *recorder) count(level string, parts ...string) int { return len(r.find(level, parts...)) }

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}

// rig is a Listener with a server around it.
type rig struct {
	testing.TB
	*Listener
	log    recorder
	policy atomic.Pointer[Policy]
	asked  atomic.Int64  // how often the policy was
	conns  chan net.Conn // handed over
	wg     sync.WaitGroup
	no     atomic.Bool // the server is shutting down
}

// behind makes the policy of a listener that trusts the test.
func behind(timeout time.Duration) *Policy {
	trusted, errs := trust.Parse([]string{"127.0.0.0/8", "::1"})
	if errs != nil {
		panic(errs)
	}
	return &Policy{ProxyProtocol: &ProxyProtocol{Trusted: trusted, HeaderTimeout: timeout}}
}

// newRig makes a Listener on a socket. It is served when the test says so.
func newRig(t testing.TB, ln net.Listener, p *Policy, change ...func(*Config)) *rig {
	r := &rig{TB: t, conns: make(chan net.Conn, 256)}
	r.policy.Store(p)
	cfg := Config{
		Name:    "edge",
		Owner:   r,
		Policy:  func() *Policy { r.asked.Add(1); return r.policy.Load() },
		Handoff: func(c net.Conn) { r.conns <- c },
		Go: func(f func()) bool {
			if r.no.Load() {
				return false
			}
			r.wg.Add(1)
			go func() { defer r.wg.Done(); f() }()
			return true
		},
		Log: &r.log,
	}
	for _, f := range change {
		f(&cfg)
	}
	r.Listener = New(ln, cfg)
	return r
}

// serve starts a Listener at an address, or a path with a slash in it.
func serve(t testing.TB, address string, p *Policy, change ...func(*Config)) *rig {
	t.Helper()
	path := ""
	if strings.Contains(address, "/") {
		address, path = "", address
	}
	ln, err := Listen(&net.ListenConfig{}, address, path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, ln, p, change...)
	r.start()
	return r
}

// start serves, and at the end of the test looks for what was left behind.
func (r *rig) start() {
	go r.Serve()
	r.Cleanup(func() {
		r.Close()
		select {
		case <-r.Done():
		case <-time.After(patience):
			r.Error("Serve goes on after Close")
		}
		r.wg.Wait()
		if n := r.Handshakes(); n != 0 {
			r.Errorf("%d handshakes are left", n)
		}
		if n := len(r.pending); n != 0 {
			r.Errorf("%d connections are tracked still", n)
		}
		close(r.conns)
		for c := range r.conns {
			c.Close()
		}
		if r.Failed() {
			r.Logf("log:\n%s", &r.log)
		}
	})
}

// dial connects and, with a header, sends it.
func (r *rig) dial(header ...[]byte) *peer {
	r.Helper()
	c, err := net.Dial(r.Addr().Network(), r.Addr().String())
	if err != nil {
		r.Fatal(err)
	}
	p := &peer{r, c}
	r.Cleanup(func() { c.Close() })
	for _, h := range header {
		p.send(h)
	}
	return p
}

// next returns the next connection that was handed over.
func (r *rig) next() net.Conn {
	r.Helper()
	select {
	case c := <-r.conns:
		r.Cleanup(func() { c.Close() })
		return c
	case <-time.After(patience):
		r.Fatalf("no connection was handed over\n%s", &r.log)
		return nil
	}
}

// none checks that no connection was handed over.
func (r *rig) none() {
	r.Helper()
	select {
	case c := <-r.conns:
		r.Errorf("%s was handed over", c.RemoteAddr())
	default:
	}
}

// pair makes a connection without a Listener.
func pair(t testing.TB) (in net.Conn, out *peer) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if in, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); in.Close() })
	return in, &peer{t, c}
}

// peer is the other end of a connection.
type peer struct {
	testing.TB
	net.Conn
}

func (p *peer) send(b []byte) {
	p.Helper()
	if _, err := p.Write(b); err != nil {
		p.Fatal(err)
	}
}

// rest reads until the connection ends. reset says that it did not end in order.
func (p *peer) rest() (got string, reset bool) {
	p.Helper()
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.Fatal(err)
	}
	b, err := io.ReadAll(p)
	switch {
	case err == nil:
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		reset = true
	default:
		p.Fatalf("not closed: %v, after %q", err, b)
	}
	return string(b), reset
}

// closed checks that the connection ends without a byte.
func (p *peer) closed() {
	p.Helper()
	if got, _ := p.rest(); got != "" {
		p.Errorf("got %q", got)
	}
}

// quiet checks that nothing comes for a while.
func (p *peer) quiet() {
	p.Helper()
	if err := p.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		p.Fatal(err)
	}
	n, err := p.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		p.Errorf("read %d bytes, %v; nothing was due", n, err)
	}
}

// v1 is a text header.
func v1(src, dst string) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	family := "TCP4"
	if s.Addr().Is6() {
		family = "TCP6"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, s.Addr(), d.Addr(), s.Port(), d.Port())
}

// v2 is a binary header, LOCAL when there is no source.
func v2(src, dst string, tlvs ...byte) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	if src == "" {
		return append(b, 0x20, 0, 0, 0)
	}
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	block := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	block = binary.BigEndian.AppendUint16(block, s.Port())
	block = binary.BigEndian.AppendUint16(block, d.Port())
	block = append(block, tlvs...)
	family := byte(0x11)
	if s.Addr().Is6() {
		family = 0x21
	}
	b = append(b, 0x21, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(block)))
	return append(b, block...)
}

var client4 = v2("203.0.113.7:51442", "10.42.0.9:4221")

// socketPath returns a path that is short enough for a socket.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "accept")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// echo checks that both directions of a connection work.
func echo(t testing.TB, a, b net.Conn) {
	t.Helper()
	for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
		want := []byte("PING\r\n")
		if _, err := c[0].Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		_ = c[1].SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(c[1], got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read %q, %v", got, err)
		}
		_ = c[1].SetReadDeadline(time.Time{})
	}
}
