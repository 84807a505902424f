package accept

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The budget of handshakes is exact, whoever comes at once, and given back.
func TestListenerAcceptMaxHandshakes(t *testing.T) {
	const most, clients = 5, 40
	p := behind(patience)
	p.MaxHandshakes = most
	release := make(chan struct{})
	var over atomic.Int64
	r := serve(t, "127.0.0.1:0", p, func(c *Config) {
		handoff := c.Handoff
		c.Handoff = func(conn net.Conn) { over.Add(1); <-release; handoff(conn) }
	})
	peers := make(chan *peer, clients)
	for range clients {
		go func() {
			c, err := net.Dial("tcp", r.Addr().String())
			if err != nil {
				t.Error(err)
			}
			peers <- &peer{t, c}
		}()
	}
	refused := func() int { return r.log.count("DBG", "refused: max_handshakes (5) reached (max_handshakes)") }
	eventually(t, "all but five are refused", func() bool { return refused() == clients-most })
	if n := r.Handshakes(); n != most {
		t.Errorf("%d handshakes", n)
	}
	if n := r.log.count("WRN"); n != 1 {
		t.Errorf("%d warnings", n)
	}

	// The header is in, but until Handoff returns it is a handshake: of TLS.
	for range clients {
		p := <-peers
		defer p.Close()
		_, _ = p.Write(client4)
	}
	eventually(t, "five are in Handoff", func() bool { return over.Load() == most })
	if n := r.Handshakes(); n != most {
		t.Errorf("%d handshakes during Handoff", n)
	}
	r.dial().closed()
	close(release)
	for range most {
		r.next()
	}
	eventually(t, "the budget is free", func() bool { return r.Handshakes() == 0 })
	r.dial(client4)
	r.next()
	r.none()
}

// What is refused gives its place back as well.
func TestListenerAcceptMaxHandshakesAfterRefusal(t *testing.T) {
	p := behind(patience)
	p.MaxHandshakes = 1
	r := serve(t, "127.0.0.1:0", p)
	for i, bad := range []string{"", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "PROXY x"} {
		c := r.dial([]byte(bad))
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		c.closed()
		eventually(t, "the budget is free", func() bool { return r.log.count("DBG") == 2*i+1 && r.Handshakes() == 0 })
		r.dial(client4)
		r.next()
		eventually(t, "the budget is free", func() bool { return r.Handshakes() == 0 })
		r.log.Debugf("next")
	}
}

// Zero means no bound, and the budget holds without proxy_protocol as well.
func TestListenerAcceptMaxHandshakesZeroAndPlain(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	var peers []*peer
	for range 50 {
		peers = append(peers, r.dial())
	}
	eventually(t, "all are let in", func() bool { return r.Handshakes() == 50 })
	for _, p := range peers {
		p.send(client4)
		r.next()
	}

	release := make(chan struct{})
	r = serve(t, "127.0.0.1:0", &Policy{MaxHandshakes: 1}, func(c *Config) {
		handoff := c.Handoff
		c.Handoff = func(conn net.Conn) { <-release; handoff(conn) }
	})
	r.dial()
	eventually(t, "one is in Handoff", func() bool { return r.Handshakes() == 1 })
	r.dial().closed()
	close(release)
	r.next()
}

// The policy is asked for each connection: a reload holds for the next one.
func TestListenerAcceptPolicyChanges(t *testing.T) {
	r := serve(t, "127.0.0.1:0", &Policy{})
	r.dial()
	if r.next(); r.asked.Load() != 1 {
		t.Errorf("asked %d times", r.asked.Load())
	}
	r.policy.Store(behind(patience))
	old := r.dial()
	eventually(t, "the handshake begins", func() bool { return r.Handshakes() == 1 })
	r.policy.Store(&Policy{ProxyProtocol: &ProxyProtocol{HeaderTimeout: patience}}) // nobody
	r.dial().closed()
	// The one whose header was awaited by the old policy is judged by that.
	old.send(client4)
	r.next()
}

// Close closes what is pending, without a word, and leaves what was handed over.
func TestListenerAcceptClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, address := range []string{"127.0.0.1:0", socketPath(t)} {
		r := serve(t, address, behind(patience))
		in := r.dial(client4)
		conn := r.next()
		silent, half := r.dial(), r.dial(client4[:20])
		eventually(t, "two are pending", func() bool { return r.Handshakes() == 2 })
		began := time.Now()
		r.Close()
		r.Close()
		silent.closed()
		half.closed()
		<-r.Done()
		r.wg.Wait()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		if n := r.Handshakes(); n != 0 {
			t.Errorf("%d handshakes", n)
		}
		if r.log.String() != "" {
			t.Errorf("log:\n%s", &r.log)
		}
		echo(t, in, conn)
		if c, err := net.Dial(r.Addr().Network(), r.Addr().String()); err == nil {
			c.Close()
			t.Error("still listening")
		}
		if _, err := os.Lstat(address); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// Whenever Close comes, a connection is handed over or closed, and nothing is
// left behind.
func TestListenerAcceptCloseRace(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 30 {
		r := serve(t, "127.0.0.1:0", behind(patience))
		var wg sync.WaitGroup
		for range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				c, err := net.Dial("tcp", r.Addr().String())
				if err != nil {
					return
				}
				defer c.Close()
				_, _ = c.Write(client4)
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("a connection was forgotten")
				}
			}()
		}
		eventually(t, "the first connections", func() bool { return int(r.asked.Load()) >= i%15 })
		r.Close()
		<-r.Done()
		r.wg.Wait()
		for len(r.conns) > 0 {
			conn := <-r.conns
			if _, err := conn.Write([]byte("x")); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("handed over, but %v", err)
			}
			conn.Close()
		}
		wg.Wait()
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// Close may come before Serve, or without it.
func TestListenerAcceptCloseWithoutServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, ln, &Policy{})
	r.Close()
	<-r.Done()
	r.Serve()
	r.Close()
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
}

// A server that is shutting down takes nobody in.
func TestListenerAcceptShuttingDown(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	r.no.Store(true)
	r.dial(client4).closed()
	eventually(t, "the budget is free", func() bool { return r.Handshakes() == 0 })
	r.none()
	if r.log.String() != "" {
		t.Errorf("log:\n%s", &r.log)
	}
}

// A connection that Close was faster than, at each of the places where it counts.
func TestListenerAcceptAfterClose(t *testing.T) {
	r := newRig(t, newScripted(t), behind(patience))
	r.Close()

	in, out := pair(t)
	r.admit(in) // accepted, not tracked yet
	out.closed()

	in, out = pair(t)
	out.send(client4)
	r.receive(in, r.policy.Load()) // header read, not handed over yet
	out.closed()

	in, out = pair(t)
	in.Close()
	r.receive(in, r.policy.Load()) // closed before it was read
	out.closed()

	r.none()
	if r.Handshakes() != 0 || r.log.String() != "" {
		t.Errorf("%d handshakes, log:\n%s", r.Handshakes(), &r.log)
	}
}

// A connection that fails in a way that is no fault of a header's.
func TestListenerAcceptConnError(t *testing.T) {
	r := newRig(t, newScripted(t), behind(patience))
	defer r.Close()
	a, b := net.Pipe()
	defer b.Close()
	a.Close()
	r.receive(a, r.policy.Load())
	if r.log.count("WRN", "refused: io: read/write on closed pipe") != 1 {
		t.Errorf("log:\n%s", &r.log)
	}
}

// Out of descriptors: wait, longer each time, and go on.
func TestListenerAcceptTemporaryError(t *testing.T) {
	ln := newScripted(t)
	r := newRig(t, ln, &Policy{})
	fail := func() (net.Conn, error) { return nil, syscall.EMFILE }
	for range 3 {
		ln.accept <- fail
	}
	r.start()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ln.accept <- ln.Listener.Accept
	r.next()
	for _, sleep := range []string{"10ms", "20ms", "40ms"} {
		if r.log.count("ERR", `Temporary accept error on listener "edge": too many open files, sleeping `+sleep) != 1 {
			t.Errorf("log:\n%s", &r.log)
		}
	}

	// Once it went well the wait is short again; at most a second otherwise;
	// Close does not wait for its end.
	for range 8 {
		ln.accept <- fail
	}
	eventually(t, "the longest wait", func() bool { return r.log.count("ERR", "sleeping 1s") == 1 })
	if r.log.count("ERR", "sleeping 10ms") != 2 {
		t.Errorf("log:\n%s", &r.log)
	}
	began := time.Now()
	r.Close()
	<-r.Done()
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("Close took %v", took)
	}
}

// Refusals: the first is logged at once, then one a minute with a count.
func TestListenerAcceptRefusals(t *testing.T) {
	var r refusals
	now := time.Now()
	note := func(peer, reason string, after time.Duration, log bool, more int, who string) {
		t.Helper()
		now = now.Add(after)
		gotLog, gotMore, gotWho := r.note(peer, reason, now)
		if gotLog != log || gotMore != more || gotWho != who {
			t.Errorf("%s, %s: %v, %d, %s; want %v, %d, %s", peer, reason, gotLog, gotMore, gotWho, log, more, who)
		}
	}
	note("a", "late", 0, true, 0, "a")
	note("a", "late", 0, false, 0, "a")
	note("a", "late", refusalEvery-1, false, 0, "a")
	note("a", "silent", 0, true, 0, "a") // another reason
	note("b", "late", 0, true, 0, "b")   // another peer
	note("a", "late", 1, true, 2, "a")   // a minute is over
	note("a", "late", refusalEvery-1, false, 0, "a")
	note("a", "late", 1, true, 1, "a")
	note("a", "late", 10*refusalEvery, true, 0, "a") // nothing was missed
}

// However many peers there are, memory is bounded, and so are the lines a minute.
func TestListenerAcceptRefusalsBounded(t *testing.T) {
	var r refusals
	start := time.Now()
	const reasons = 3
	storm := func(now time.Time, first int) (lines, told int, others bool) {
		for i := range 20000 {
			log, more, who := r.note(strconv.Itoa(first+i/2), "reason"+strconv.Itoa(i%reasons), now)
			if log {
				lines++
				told += 1 + more
			}
			others = others || who == otherPeers
			if len(r.seen) > maxRefusals+reasons {
				t.Fatalf("%d peers are remembered", len(r.seen))
			}
		}
		return lines, told, others
	}
	lines, told, others := storm(start, 0)
	if lines > maxRefusals+reasons || lines < maxRefusals || !others {
		t.Errorf("%d lines, other peers %v", lines, others)
	}
	if again, _, _ := storm(start.Add(refusalEvery-1), 50000); again != 0 {
		t.Errorf("%d lines in the same minute", again)
	}

	// A minute later there is room for new peers, those of before were refused
	// more than once or not; nobody was forgotten in the count.
	now := start.Add(2 * refusalEvery)
	if log, _, who := r.note("new", "late", now); !log || who != "new" {
		t.Errorf("a new peer after the storm is %q, logged %v", who, log)
	}
	for i := range reasons {
		for j := 0; ; j++ {
			log, more, who := r.note("n"+strconv.Itoa(j), "reason"+strconv.Itoa(i), now)
			if log {
				told += 1 + more
			}
			if who == otherPeers {
				break
			}
			told-- // one of the new ones themselves
		}
		told-- // that of the other peers
	}
	if want := 40000; told != want {
		t.Errorf("%d refusals were told of, of %d", told, want)
	}
}

// Peers that came more than once and not again make room as well, and what was
// counted of them is told with the other peers'.
func TestListenerAcceptRefusalsForgotten(t *testing.T) {
	var r refusals
	now := time.Now()
	for i := range maxRefusals {
		for range 3 {
			r.note("old"+strconv.Itoa(i), "late", now)
		}
	}
	now = now.Add(refusalEvery)
	for i := range maxRefusals - 1 { // the other peers take one place
		if log, more, who := r.note("new"+strconv.Itoa(i), "late", now); !log || more != 0 || who == otherPeers {
			t.Fatalf("new peer %d: %v, %d, %s", i, log, more, who)
		}
	}
	if log, more, who := r.note("one more", "late", now); !log || more != 2*maxRefusals || who != otherPeers {
		t.Errorf("the other peers: %v, %d, %s", log, more, who)
	}
}

func TestListenerAcceptRefusalsLogged(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	const times = 7
	for range times {
		r.dial([]byte("GET / HTTP/1.1\r\n")).closed()
	}
	eventually(t, "each is a line for debugging", func() bool { return r.log.count("DBG", "(http)") == times })
	if r.log.count("WRN") != 1 || r.log.count("WRN", "(and") != 0 {
		t.Errorf("log:\n%s", &r.log)
	}
	// As if a minute had gone by.
	r.refusals.mu.Lock()
	for _, e := range r.refusals.seen {
		e.since = e.since.Add(-refusalEvery)
	}
	r.refusals.mu.Unlock()
	r.dial([]byte("GET / HTTP/1.1\r\n")).closed()
	eventually(t, "the count", func() bool {
		return r.log.count("WRN", `connection from 127.0.0.1 refused: `, `(and 6 more times since it was last logged)`) == 1
	})
	// The port of a peer is for debugging: it is another one each time.
	if r.log.count("DBG", `Listener "edge": 127.0.0.1:`) != times+1 {
		t.Errorf("log:\n%s", &r.log)
	}
}

func TestListenerAcceptInfoOf(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if InfoOf(a) != nil || InfoOf(nil) != nil || InfoOf(&net.TCPConn{}) != nil {
		t.Error("there is Info of a connection that is none of ours")
	}
	defer func() {
		if recover() == nil {
			t.Error("a pipe was wrapped")
		}
	}()
	wrap(a, Info{})
}

func TestListenerAcceptListenTCP(t *testing.T) {
	ln, err := Listen(&net.ListenConfig{}, "127.0.0.1:0", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := Listen(&net.ListenConfig{}, ln.Addr().String(), "", 0); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the same port again: %v", err)
	}
	if _, err := Listen(&net.ListenConfig{}, "127.0.0.1", "", 0); err == nil {
		t.Error("no port, no error")
	}
}

func TestListenerAcceptListenUnixMode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666, 0o777, 0} {
		path := socketPath(t)
		ln, err := Listen(&net.ListenConfig{}, "", path, mode)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode() != fs.ModeSocket|mode {
			t.Errorf("mode is %v, %v, want %v", fi.Mode(), err, mode)
		}
		ln.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	}
}

// A socket that a killed server left is taken over; all else at the path stays.
func TestListenerAcceptListenUnixStale(t *testing.T) {
	path := socketPath(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(&net.ListenConfig{}, "", path, 0o600)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	defer ln.Close()

	if _, err := Listen(&net.ListenConfig{}, "", path, 0o600); err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Errorf("a socket in use: %v", err)
	}
	// Looking at it did it no harm.
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the socket in use: %v", err)
	}
	c.Close()

	file := socketPath(t)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := socketPath(t)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	dir := socketPath(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{file, link, dir} {
		if _, err := Listen(&net.ListenConfig{}, "", p, 0o600); err == nil || err.Error() != fmt.Sprintf("%s exists and is not a socket", p) {
			t.Errorf("%s: %v", p, err)
		}
		if _, err := os.Lstat(p); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file is now %q", b)
	}

	if _, err := Listen(&net.ListenConfig{}, "", socketPath(t)+"/no/such/s", 0o600); err == nil {
		t.Error("no directory, no error")
	}
	if _, err := Listen(&net.ListenConfig{}, "", file+"/s", 0o600); err == nil {
		t.Error("a file for a directory, no error")
	}
}
