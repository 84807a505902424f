package accept

import (
	"bytes"
	"io"
	"math/rand"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/trust"
)

// What a good header makes of a connection (G1, T7, B2, B3).
func TestProxyProtoClientAddress(t *testing.T) {
	const real = "" // the socket peer's own
	for _, c := range []struct {
		name    string
		header  []byte
		remote  string
		version int
	}{
		{"v1 TCP4", v1("203.0.113.7:51442", "10.42.0.9:4221"), "203.0.113.7:51442", 1},
		{"v1 TCP6", v1("[2001:db8::7]:51442", "[2001:db8::9]:4221"), "[2001:db8::7]:51442", 1},
		{"v1 UNKNOWN", []byte("PROXY UNKNOWN ffff:f::1 and more\r\n"), real, 1},
		{"v2 TCP4", client4, "203.0.113.7:51442", 2},
		{"v2 TCP6", v2("[2001:db8::7]:51442", "[2001:db8::9]:4221"), "[2001:db8::7]:51442", 2},
		{"v2 mapped", v2("[::ffff:203.0.113.7]:51442", "[::ffff:10.42.0.9]:4221"), "203.0.113.7:51442", 2},
		{"v2 port 0", v2("203.0.113.7:0", "10.42.0.9:0"), "203.0.113.7:0", 2},
		{"v2 LOCAL", v2("", ""), real, 2},
	} {
		for _, network := range []string{"127.0.0.1:0", "[::1]:0", "unix"} {
			t.Run(c.name+" "+network, func(t *testing.T) {
				address := network
				if network == "unix" {
					address = socketPath(t)
				}
				r := serve(t, address, behind(patience))
				p := r.dial(c.header)
				conn := r.next()

				remote, proxiedBy := c.remote, p.LocalAddr().String()
				if network == "unix" {
					proxiedBy = "unix:" + address
				}
				if c.remote == real {
					remote, proxiedBy = p.LocalAddr().String(), ""
					if network == "unix" {
						remote = address
					}
				}
				if got := conn.RemoteAddr().String(); got != remote {
					t.Errorf("RemoteAddr is %s, want %s", got, remote)
				}
				info := InfoOf(conn)
				if info == nil || info.Header == nil {
					t.Fatal("no header")
				}
				if info.Owner != r || info.ProxiedBy != proxiedBy || info.Header.Version != c.version || info.Header.Local != (c.remote == real) {
					t.Errorf("proxied by %q, want %q; %+v", info.ProxiedBy, proxiedBy, info.Header)
				}
				if _, ok := conn.RemoteAddr().(*net.TCPAddr); !ok && c.remote != real {
					t.Errorf("RemoteAddr is a %T", conn.RemoteAddr())
				}
				if got := conn.LocalAddr().String(); got != r.Addr().String() {
					t.Errorf("LocalAddr is %s, want %s", got, r.Addr())
				}
				echo(t, p, conn)
				if n := r.log.count(""); n != 0 {
					t.Errorf("a good connection is worth %d lines in the log", n)
				}
			})
		}
	}
}

// What the header says besides the address comes along.
func TestProxyProtoHeaderFacts(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	ssl := []byte{0x20, 0, 15, 1, 0, 0, 0, 0, 0x21, 0, 7}
	r.dial(v2("203.0.113.7:51442", "10.42.0.9:4221", append(ssl, "TLSv1.3"...)...))
	if h := InfoOf(r.next()).Header; !h.TLS.Proved() || h.TLS.Version != "TLSv1.3" {
		t.Errorf("%+v", h.TLS)
	}
}

// Without proxy_protocol the socket peer is the client, and its bytes are its own.
func TestListenerAcceptPlain(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0", socketPath(t)} {
		r := serve(t, address, &Policy{})
		p := r.dial(client4)
		conn := r.next()
		want := p.LocalAddr().String()
		if strings.Contains(address, "/") {
			want = address
		}
		if got := conn.RemoteAddr().String(); got != want {
			t.Errorf("RemoteAddr is %s, want %s", got, want)
		}
		if info := InfoOf(conn); info.Header != nil || info.ProxiedBy != "" || info.Owner != r {
			t.Errorf("%+v", info)
		}
		got := make([]byte, len(client4))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, client4) {
			t.Errorf("read %q, %v", got, err)
		}
		echo(t, p, conn)
	}
}

// A peer of a dual-stack socket is IPv4-mapped, and trusted as IPv4.
func TestListenerAcceptTrustDualStack(t *testing.T) {
	r := serve(t, ":0", behind(patience))
	_, port, _ := net.SplitHostPort(r.Addr().String())
	c, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(client4); err != nil {
		t.Fatal(err)
	}
	if info := InfoOf(r.next()); info.ProxiedBy != c.LocalAddr().String() {
		t.Errorf("proxied by %s, want %s", info.ProxiedBy, c.LocalAddr())
	}
}

// Not trusted is closed with no byte read or sent (G5), however good the header.
func TestProxyProtoUntrusted(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		for name, entries := range map[string][]string{"others": {"192.0.2.0/24", "2001:db8::/32"}, "nobody": nil} {
			t.Run(address+" "+name, func(t *testing.T) {
				list, _ := trust.Parse(entries)
				r := serve(t, address, &Policy{ProxyProtocol: &ProxyProtocol{Trusted: list, HeaderTimeout: patience}})
				r.dial().closed()
				r.dial(client4).closed()
				eventually(t, "two refusals", func() bool { return r.log.count("DBG", "refused: not a trusted proxy (untrusted)") == 2 })
				if n := r.log.count("WRN", `Listener "edge": connection from `, "refused: not a trusted proxy"); n != 1 {
					t.Errorf("%d warnings", n)
				}
				r.none()
			})
		}
	}
}

// counted is a connection that knows what was done with it.
type counted struct {
	net.Conn
	reads, writes, closes atomic.Int64
}

func (c *counted) Read(b []byte) (int, error)  { c.reads.Add(1); return c.Conn.Read(b) }
func (c *counted) Write(b []byte) (int, error) { c.writes.Add(1); return c.Conn.Write(b) }
func (c *counted) Close() error                { c.closes.Add(1); return c.Conn.Close() }

// scripted is a net.Listener that does what it is told.
type scripted struct {
	net.Listener
	accept chan func() (net.Conn, error)
	ended  chan struct{}
}

func newScripted(t testing.TB) *scripted {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &scripted{ln, make(chan func() (net.Conn, error), 64), make(chan struct{})}
}

func (s *scripted) Accept() (net.Conn, error) {
	select {
	case f := <-s.accept:
		return f()
	case <-s.ended:
		return nil, net.ErrClosed
	}
}

func (s *scripted) Close() error { close(s.ended); return s.Listener.Close() }

// The same, seen from inside: the policy is asked, then the connection closed,
// and nothing else is done with it. No goroutine is made for it.
func TestProxyProtoUntrustedIsNotTouched(t *testing.T) {
	ln := newScripted(t)
	list, _ := trust.Parse([]string{"192.0.2.0/24"})
	r := newRig(t, ln, &Policy{ProxyProtocol: &ProxyProtocol{Trusted: list, HeaderTimeout: patience}},
		func(c *Config) { c.Go = func(func()) bool { t.Error("a goroutine was asked for"); return false } })
	r.start()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write(client4); err != nil {
		t.Fatal(err)
	}
	in, err := ln.Listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Conn: in}
	ln.accept <- func() (net.Conn, error) { return c, nil }
	eventually(t, "the connection is closed", func() bool { return c.closes.Load() == 1 })
	if c.reads.Load() != 0 || c.writes.Load() != 0 || r.asked.Load() != 1 {
		t.Errorf("%d reads, %d writes, policy asked %d times", c.reads.Load(), c.writes.Load(), r.asked.Load())
	}
	(&peer{t, out}).closed()
}

// Trust is not asked on a Unix socket; what is neither that nor TCP is nobody's.
func TestProxyProtoTrustByTypeOfSocket(t *testing.T) {
	list, _ := trust.Parse([]string{"192.0.2.0/24"})
	policy := &Policy{ProxyProtocol: &ProxyProtocol{Trusted: list, HeaderTimeout: patience}}
	r := serve(t, socketPath(t), policy)
	r.dial(client4)
	r.next()

	ln := newScripted(t)
	r = newRig(t, ln, policy)
	r.start()
	a, b := net.Pipe()
	defer b.Close()
	ln.accept <- func() (net.Conn, error) { return a, nil }
	eventually(t, "a pipe is refused", func() bool { return r.log.count("DBG", "(untrusted)") == 1 })
}

// G6: a header in pieces, at every split point, and one byte at a time; what
// follows it arrives unchanged, wherever the segments end.
func TestProxyProtoSplitHeader(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	const after = "CONNECT {}\r\nPING\r\n"
	for _, header := range [][]byte{client4, v1("203.0.113.7:51442", "10.42.0.9:4221")} {
		all := append(bytes.Clone(header), after...)
		for cut := 1; cut <= len(all); cut++ {
			p := r.dial(all[:cut])
			if cut < len(header) {
				eventually(t, "the handshake begins", func() bool { return r.Handshakes() == 1 })
			}
			p.send(all[cut:])
			checkAfter(t, r.next(), after)
		}
		p := r.dial()
		for i := range all {
			p.send(all[i : i+1])
		}
		checkAfter(t, r.next(), after)
	}
}

func checkAfter(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	if got := conn.RemoteAddr().String(); got != "203.0.113.7:51442" {
		t.Fatalf("RemoteAddr is %s", got)
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("after the header: %q, %v, want %q", got, err, want)
	}
	conn.Close()
}

// A lot of data behind the header, in any segments, arrives as it was sent.
func TestProxyProtoDataAfterHeader(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	data := make([]byte, 1<<20)
	rnd.Read(data)
	for _, address := range []string{"127.0.0.1:0", socketPath(t)} {
		r := serve(t, address, behind(patience))
		p := r.dial()
		sent := make(chan error, 1)
		go func() {
			rest := append(bytes.Clone(client4), data...)
			for len(rest) > 0 {
				n := min(len(rest), 1+rnd.Intn(5000))
				if _, err := p.Write(rest[:n]); err != nil {
					sent <- err
					return
				}
				rest = rest[n:]
			}
			sent <- nil
		}()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(r.next(), got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: other data arrived, %v", address, err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// G2, B9: nothing is sent, and nobody is told of the connection, before the
// header is complete; the deadline is gone afterwards.
func TestProxyProtoNothingBeforeHeader(t *testing.T) {
	const timeout = 500 * time.Millisecond
	r := serve(t, "127.0.0.1:0", behind(timeout))
	began := time.Now()
	p := r.dial(client4[:len(client4)-1])
	p.quiet()
	r.none()
	p.send(client4[len(client4)-1:])
	if time.Since(began) > timeout {
		t.Skip("too slow a machine") // the header came too late
	}
	conn := r.next()
	// A read that goes on beyond the deadline of the header.
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatalf("the read ended: %v", err)
	case <-time.After(time.Until(began.Add(timeout + 100*time.Millisecond))):
	}
	p.send([]byte("x"))
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// G3: one deadline for all of the header, that dripping does not extend.
func TestProxyProtoDrippedHeader(t *testing.T) {
	const timeout = 400 * time.Millisecond
	r := serve(t, "127.0.0.1:0", behind(timeout))
	began := time.Now()
	p := r.dial()
	go func() {
		// It would take five seconds.
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for _, b := range []byte("PROXY UNKNOWN " + strings.Repeat("x", 86)) {
			if _, err := p.Write([]byte{b}); err != nil {
				return
			}
			<-tick.C
		}
	}()
	p.closed()
	if took := time.Since(began); took < timeout || took > 3*time.Second {
		t.Errorf("closed after %v, the deadline is %v", took, timeout)
	}
	eventually(t, "the reason", func() bool { return r.log.count("DBG", "(late)") == 1 })
	if r.log.count("WRN", "late") != 1 {
		t.Errorf("log:\n%s", &r.log)
	}
	r.none()
}

// A header that is cut off is no header.
func TestProxyProtoTruncatedHeader(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	for n := 1; n < len(client4); n++ {
		p := r.dial(client4[:n])
		if err := p.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.closed()
	}
	eventually(t, "the reasons", func() bool { return r.log.count("DBG", "(truncated)") == len(client4)-1 })
	r.none()
}

const tellText = "-ERR 'Listener edge is for edge proxies and needs a PROXY protocol header first, connect to another port'\r\n"

// A NATS client that speaks first, and one that waits to be spoken to, are told
// in a way that they can read: no reset overtakes the text.
func TestProxyProtoTellsNATSClient(t *testing.T) {
	for _, c := range []struct {
		name, sends, reason string
	}{
		{"CONNECT", "CONNECT {\"verbose\":false}\r\nPING\r\n", "nats_client"},
		{"a lot", "CONNECT {}\r\n" + strings.Repeat("PUB foo 5\r\nhello\r\n", 1700), "nats_client"},
		{"silence", "", "silent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			timeout := patience
			if c.sends == "" {
				timeout = 50 * time.Millisecond
			}
			r := serve(t, "127.0.0.1:0", behind(timeout))
			const clients = 30
			done := make(chan string, clients)
			for range clients {
				p := r.dial()
				go func() {
					_, _ = io.WriteString(p, c.sends)
					// As a client does that ends when it has read the error.
					_ = p.SetReadDeadline(time.Now().Add(patience))
					b, err := io.ReadAll(p)
					if err != nil {
						b = append(b, err.Error()...)
					}
					p.Close()
					done <- string(b)
				}()
			}
			for range clients {
				if got := <-done; got != tellText {
					t.Errorf("got %q", got)
				}
			}
			eventually(t, "the reasons", func() bool { return r.log.count("DBG", "("+c.reason+")") == clients })
			if n := r.log.count("WRN", "refused"); n != 1 {
				t.Errorf("%d warnings", n)
			}
			r.none()
		})
	}
}

// drained is a connection that counts what is read from it.
type drained struct {
	*net.TCPConn
	n int
}

func (d *drained) Read(b []byte) (int, error) {
	n, err := d.TCPConn.Read(b)
	d.n += n
	return n, err
}

// What the client sent is read before the connection is closed, or the close
// would be a reset, which takes the text from clients on most systems. Not all of
// it where there is no end to it.
func TestProxyProtoTellDrains(t *testing.T) {
	for size, least := range map[int]int{30 << 10: 30 << 10, 1 << 20: tellDrain} {
		r := newRig(t, newScripted(t), behind(patience))
		in, out := pair(t)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = out.Write(make([]byte, size))
			_ = out.Conn.(*net.TCPConn).CloseWrite()
		}()
		d := &drained{TCPConn: in.(*net.TCPConn)}
		r.tell(d)
		if d.n != least {
			t.Errorf("%d bytes read of %d", d.n, size)
		}
		in.Close()
		<-sent
		r.Close()
	}

	// Nothing to be done for a connection that is gone.
	r := newRig(t, newScripted(t), behind(patience))
	defer r.Close()
	in, out := pair(t)
	in.Close()
	r.tell(in)
	out.closed()
}

// What comes of a peer that does not go away after it was told.
func TestProxyProtoTellEnds(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(20*time.Millisecond))
	p := r.dial()
	eventually(t, "the refusal", func() bool { return r.log.count("DBG", "(silent)") == 1 })
	if r.log.count("WRN", "no PROXY protocol header within 20ms, nothing was sent at all") != 1 {
		t.Errorf("log:\n%s", &r.log)
	}
	eventually(t, "the end", func() bool { return r.Handshakes() == 0 })
	if got, _ := p.rest(); got != tellText {
		t.Errorf("got %q", got)
	}
}

// Others are closed without a word, with their reason in the log.
func TestProxyProtoReasons(t *testing.T) {
	for _, c := range []struct {
		name, sends string
		reason      proxyheader.Reason
	}{
		{"TLS", "\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", proxyheader.ReasonTLSClientHello},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", proxyheader.ReasonHTTP},
		{"noise", "\x00\x01\x02", proxyheader.ReasonNoHeader},
		{"v1", "PROXY TCP4 1.2.3.4\r\n", proxyheader.ReasonBadV1},
		{"address", string(v2("0.0.0.0:1", "10.42.0.9:4221")), proxyheader.ReasonBadAddress},
		{"command", "\r\n\r\n\x00\r\nQUIT\n\x2f\x11\x00\x0c123456789012", proxyheader.ReasonUnsupported},
		{"length", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", proxyheader.ReasonTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := serve(t, "127.0.0.1:0", behind(patience))
			p := r.dial([]byte(c.sends))
			p.closed()
			eventually(t, "the reason", func() bool { return r.log.count("DBG", "("+string(c.reason)+")") == 1 })
			if r.log.count("WRN", `Listener "edge": connection from 127.0.0.1 refused: `, string(c.reason)) != 1 {
				t.Errorf("log:\n%s", &r.log)
			}
			r.none()
		})
	}
}

// Limits of the policy reach the header's reader.
func TestProxyProtoLimits(t *testing.T) {
	p := behind(patience)
	p.ProxyProtocol.Limits = proxyheader.Limits{CRC32C: proxyheader.CRCRequire}
	r := serve(t, "127.0.0.1:0", p)
	r.dial(client4).closed()
	eventually(t, "the reason", func() bool { return r.log.count("DBG", "(crc_missing)") == 1 })
	p = behind(patience)
	p.ProxyProtocol.Limits = proxyheader.Limits{MaxHeader: 27}
	r.policy.Store(p)
	r.dial(client4).closed()
	eventually(t, "the reason", func() bool { return r.log.count("DBG", "(too_long)") == 1 })
}

// A probe that connects and goes away is worth a line for those who look for it.
func TestProxyProtoProbe(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	for range 3 {
		r.dial().Close()
	}
	p := r.dial()
	if err := p.Conn.(*net.TCPConn).SetLinger(0); err != nil { // ends in a reset
		t.Fatal(err)
	}
	p.Close()
	eventually(t, "the probes", func() bool { return r.log.count("DBG", "(closed)") == 4 })
	if n := r.log.count("WRN") + r.log.count("ERR"); n != 0 {
		t.Errorf("log:\n%s", &r.log)
	}
	r.none()
}

// What a peer sends cannot write into the log, nor to the terminal.
func TestProxyProtoLogIsEscaped(t *testing.T) {
	r := serve(t, "127.0.0.1:0", behind(patience))
	for _, s := range []string{"x\r\n[1] [INF] all is well\r\n", "\x1b[2J\x07", "\xff\xfe%s%d%!", "PROXY \x1b[31mTCP4 1.2.3.4\r\n", "PROXY TCP4 \n"} {
		n := r.log.count("DBG")
		r.dial([]byte(s)).closed()
		eventually(t, "the refusal", func() bool { return r.log.count("DBG") == n+1 })
	}
	for _, level := range []string{"DBG", "WRN"} {
		for _, line := range r.log.find(level) {
			if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) || strings.Contains(line, "MISSING") {
				t.Errorf("%q", line)
			}
		}
	}
}
