// Package test proves the patched server from the outside: in this process for
// what needs the race detector, as the real binary for what needs a process, and
// behind real edge proxies.
package test

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/pires/go-proxyproto"

	"nats-trusted-proxy/scripts/devcert/certs"
)

// deadline bounds every wait of these tests. The machines are slow and shared.
const deadline = 20 * time.Second

// checkFor polls until f returns nil.
func checkFor(t testing.TB, f func() error) {
	t.Helper()
	checkWithin(t, deadline, f)
}

func checkWithin(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %v", limit, err)
}

func require_NoError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected error: %v", err)
	}
}

func require_Equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %#v, want %#v", got, want)
	}
}

func require_Contains(t testing.TB, s string, subs ...string) {
	t.Helper()
	for _, sub := range subs {
		if !strings.Contains(s, sub) {
			t.Fatalf("%q is not in:\n%s", sub, s)
		}
	}
}

// createConfFile writes a configuration, with what every one here has in front.
func createConfFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats-server.conf")
	require_NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// testLog is a server's log, kept for the tests that read it.
type testLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *testLog) add(level, format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, level+" "+fmt.Sprintf(format, v...))
}

func (l *testLog) Noticef(format string, v ...any) { l.add("INF", format, v...) }
func (l *testLog) Warnf(format string, v ...any)   { l.add("WRN", format, v...) }
func (l *testLog) Errorf(format string, v ...any)  { l.add("ERR", format, v...) }
func (l *testLog) Fatalf(format string, v ...any)  { l.add("FTL", format, v...) }
func (l *testLog) Debugf(format string, v ...any)  { l.add("DBG", format, v...) }
func (l *testLog) Tracef(string, ...any)           {}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// count returns how many lines of the log have all of these in them.
func (l *testLog) count(subs ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
lines:
	for _, line := range l.lines {
		for _, sub := range subs {
			if !strings.Contains(line, sub) {
				continue lines
			}
		}
		n++
	}
	return n
}

// runServerWithConfig starts a server and waits until it is ready.
func runServerWithConfig(t testing.TB, path string, set ...func(*server.Options)) (*server.Server, *testLog) {
	t.Helper()
	s, log := newServerWithConfig(t, path, set...)
	s.Start()
	if !s.ReadyForConnections(deadline) {
		t.Fatalf("server is not ready:\n%s", log)
	}
	return s, log
}

// configPaths has the configuration file of each server.
var configPaths sync.Map

func configPath(s *server.Server) string {
	path, _ := configPaths.Load(s)
	return path.(string)
}

func newServerWithConfig(t testing.TB, path string, set ...func(*server.Options)) (*server.Server, *testLog) {
	t.Helper()
	opts, err := server.ProcessConfigFile(path)
	require_NoError(t, err)
	opts.NoSigs, opts.Debug = true, true
	for _, f := range set {
		f(opts)
	}
	s, err := server.NewServer(opts)
	require_NoError(t, err)
	configPaths.Store(s, path)
	log := &testLog{}
	s.SetLoggerV2(log, true, false, false)
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s, log
}

// runServer starts a server with a random main port on loopback, a monitoring
// port and what conf adds.
func runServer(t testing.TB, conf string, set ...func(*server.Options)) (*server.Server, *testLog) {
	t.Helper()
	return runServerWithConfig(t, createConfFile(t, mainConf+conf), set...)
}

// mainConf is what is in front of every configuration here. Debug stands in it,
// and not only in the options, for a reload not to turn it off and the log with it.
const mainConf = "listen: 127.0.0.1:-1\nhttp: 127.0.0.1:-1\ndebug: true\n"

// trustedConf is the listener that most of these tests are about.
const trustedConf = `
listeners {
  edge { listen: "127.0.0.1:-1", proxy_protocol { trusted: ["127.0.0.1", "::1"] } }
}
`

func listenerAddr(t testing.TB, s *server.Server, name string) string {
	t.Helper()
	a := s.ListenerAddr(name)
	if a == nil {
		t.Fatalf("listener %q is not open", name)
	}
	return a.String()
}

// header returns a PROXY header of that version from src (ip:port), with TLVs
// for version 2.
func header(t testing.TB, version byte, src string, tlvs ...proxyproto.TLV) []byte {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", src)
	require_NoError(t, err)
	dst := &net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 4443}
	if a.IP.To4() == nil {
		dst.IP = net.ParseIP("2001:db8::1")
	}
	h := proxyproto.HeaderProxyFromAddrs(version, a, dst)
	if len(tlvs) > 0 {
		require_NoError(t, h.SetTLVs(tlvs))
	}
	b, err := h.Format()
	require_NoError(t, err)
	return b
}

// localHeader is what a health check sends.
func localHeader(t testing.TB) []byte {
	t.Helper()
	b, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
	require_NoError(t, err)
	return b
}

// sslTLV is the SSL TLV with these flags and verify, and TLS 1.3 as its version.
func sslTLV(flags byte, verify uint32) proxyproto.TLV {
	v := []byte{flags, byte(verify >> 24), byte(verify >> 16), byte(verify >> 8), byte(verify)}
	if flags&1 != 0 {
		v = append(v, 0x21, 0, 7)
		v = append(v, "TLSv1.3"...)
	}
	return proxyproto.TLV{Type: proxyproto.PP2_TYPE_SSL, Value: v}
}

// info is INFO as a client gets it, with absent told from false.
type info map[string]any

func (i info) tls() string {
	var on []string
	for _, k := range []string{"tls_required", "tls_available", "tls_verify"} {
		if v, ok := i[k]; ok {
			on = append(on, fmt.Sprintf("%s=%v", k, v))
		}
	}
	return strings.Join(on, " ")
}

func (i info) connectURLs() string {
	if i["connect_urls"] == nil {
		return ""
	}
	var us []string
	for _, u := range i["connect_urls"].([]any) {
		us = append(us, u.(string))
	}
	return strings.Join(us, " ")
}

// rawClient speaks the protocol by hand.
type rawClient struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, addr string, first ...[]byte) *rawClient {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, addr, deadline)
	require_NoError(t, err)
	t.Cleanup(func() { c.Close() })
	for _, b := range first {
		_, err := c.Write(b)
		require_NoError(t, err)
	}
	return newRaw(t, c)
}

func newRaw(t testing.TB, c net.Conn) *rawClient {
	return &rawClient{t, c, bufio.NewReader(c)}
}

func (c *rawClient) line() string {
	c.t.Helper()
	require_NoError(c.t, c.SetReadDeadline(time.Now().Add(deadline)))
	s, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("reading a line: %v (got %q)", err, s)
	}
	return strings.TrimRight(s, "\r\n")
}

func (c *rawClient) send(s string) {
	c.t.Helper()
	_, err := c.Write([]byte(s))
	require_NoError(c.t, err)
}

func (c *rawClient) info() info {
	c.t.Helper()
	i, err := parseInfo(c.line())
	require_NoError(c.t, err)
	return i
}

func parseInfo(line string) (i info, err error) {
	body, ok := strings.CutPrefix(line, "INFO ")
	if !ok {
		return nil, fmt.Errorf("want INFO, got %q", line)
	}
	return i, json.Unmarshal([]byte(body), &i)
}

// connect sends CONNECT and PING and returns what came before the PONG, and the
// INFO after it.
func (c *rawClient) connect(extra string) (before []string, after info) {
	c.t.Helper()
	c.send(fmt.Sprintf("CONNECT {\"verbose\":false,\"lang\":\"test\",\"protocol\":1%s}\r\nPING\r\n", extra))
	for {
		l := c.line()
		if l == "PONG" {
			return before, c.info()
		}
		before = append(before, l)
	}
}

// closedWithout fails unless the peer closes having sent nothing.
func (c *rawClient) closedWithout() {
	c.t.Helper()
	require_NoError(c.t, c.SetReadDeadline(time.Now().Add(deadline)))
	b := make([]byte, 1)
	if n, err := c.r.Read(b); n > 0 || err == nil || os.IsTimeout(err) {
		c.t.Fatalf("want a close with nothing sent, got %q, %v", b[:n], err)
	}
}

// testCerts makes certificates for this test and returns their folder.
func testCerts(t testing.TB, o certs.Opts) string {
	t.Helper()
	dir := t.TempDir()
	_, err := certs.Write(dir, o)
	require_NoError(t, err)
	return dir
}

func caPool(t testing.TB, dir string) *x509.CertPool {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, certs.CA))
	require_NoError(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("no certificate in ca.pem")
	}
	return pool
}

func clientCert(t testing.TB, dir string) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, certs.Client), filepath.Join(dir, certs.ClientKey))
	require_NoError(t, err)
	return c
}

// proxyDialer is an edge in the form of a dialer: it sends a header first.
type proxyDialer struct {
	addr   string
	header []byte
}

func (d proxyDialer) Dial(_, _ string) (net.Conn, error) {
	network := "tcp"
	if strings.HasPrefix(d.addr, "/") {
		network = "unix"
	}
	c, err := net.DialTimeout(network, d.addr, deadline)
	if err != nil {
		return nil, err
	}
	_, err = c.Write(d.header)
	return c, err
}

func connectNATS(t testing.TB, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append([]nats.Option{nats.Timeout(deadline), nats.NoReconnect()}, opts...)...)
	if err != nil {
		t.Fatalf("connecting to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// connectThrough connects by a listener with this header in front.
func connectThrough(t testing.TB, s *server.Server, name string, h []byte, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return connectNATS(t, "nats://127.0.0.1:1", append(opts, nats.SetCustomDialer(proxyDialer{listenerAddr(t, s, name), h}))...)
}

// roundTrip sends a message each way and a request between two connections.
func roundTrip(t testing.TB, a, b *nats.Conn) {
	t.Helper()
	for _, pair := range [][2]*nats.Conn{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		subject := nats.NewInbox()
		sub, err := to.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond(append([]byte("re: "), m.Data...)) })
		require_NoError(t, err)
		require_NoError(t, to.Flush())
		m, err := from.Request(subject, []byte("hello"), deadline)
		require_NoError(t, err)
		require_Equal(t, string(m.Data), "re: hello")
		require_NoError(t, sub.Unsubscribe())
	}
}

// monitor gets a page of the monitoring port.
func monitor(t testing.TB, s *server.Server, page string, v any) {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://%s%s", s.MonitorAddr(), page))
	require_NoError(t, err)
	defer r.Body.Close()
	require_Equal(t, r.StatusCode, http.StatusOK)
	require_NoError(t, json.NewDecoder(r.Body).Decode(v))
}

// connInfo is what connz shows of a connection, our fields among them.
type connInfo struct {
	Cid       uint64 `json:"cid"`
	IP        string `json:"ip"`
	Port      int    `json:"port"`
	Listener  string `json:"listener"`
	ProxiedBy string `json:"proxied_by"`
	TLS       string `json:"tls_version"`
	User      string `json:"authorized_user"`
	Reason    string `json:"reason"`
	Name      string `json:"name"`
}

func connz(t testing.TB, s *server.Server, query string) []connInfo {
	t.Helper()
	var z struct {
		Conns []connInfo `json:"connections"`
	}
	monitor(t, s, "/connz"+query, &z)
	return z.Conns
}

var nextPort atomic.Int64

// freePort returns a loopback port that nobody has. It is below the range that
// the system hands out by itself, so that no other test, in no other process,
// gets it between now and its use.
func freePort(t testing.TB) int {
	t.Helper()
	nextPort.CompareAndSwap(0, int64(10_000+os.Getpid()*101%20_000))
	for range 1000 {
		port := int(nextPort.Add(1))
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// spki returns the pin of the client certificate of dir.
func spki(t testing.TB, dir string) string {
	t.Helper()
	c, err := x509.ParseCertificate(clientCert(t, dir).Certificate[0])
	require_NoError(t, err)
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// goroutinesOf counts the goroutines with this text in their stack.
func goroutinesOf(text string) (n int) {
	buf := make([]byte, 8<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, text) {
			n++
		}
	}
	return n
}

// mallocs returns how many objects this process has allocated so far.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}
