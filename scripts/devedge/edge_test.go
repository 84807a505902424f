package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"nats-trusted-proxy/scripts/devcert/certs"
)

const testTimeout = 5 * time.Second

// received is what the fake server got: the header, decoded and as it was on
// the wire, and the connection with whatever follows.
type received struct {
	raw    []byte
	header *proxyproto.Header
	conn   net.Conn
	r      *bufio.Reader
	err    error
}

func makeCerts(t *testing.T, o certs.Opts) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := certs.Write(dir, o); err != nil {
		t.Fatal(err)
	}
	return dir
}

func pool(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	p, err := readPool(filepath.Join(dir, certs.CA))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// startServer accepts connections and reads the header of each.
func startServer(t *testing.T, network, address string) (string, <-chan received) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan received, 16)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				c.SetDeadline(time.Now().Add(testTimeout))
				var raw bytes.Buffer
				fixed := make([]byte, fixedLen)
				if _, err := io.ReadFull(io.TeeReader(c, &raw), fixed); err != nil {
					ch <- received{err: err}
					return
				}
				rest := int64(binary.BigEndian.Uint16(fixed[14:]))
				if _, err := io.CopyN(&raw, c, rest); err != nil {
					ch <- received{err: err}
					return
				}
				h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(raw.Bytes())))
				ch <- received{raw: raw.Bytes(), header: h, conn: c, r: bufio.NewReader(c), err: err}
			}()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), ch
}

func receive(t *testing.T, ch <-chan received) received {
	t.Helper()
	select {
	case r := <-ch:
		if r.err != nil {
			t.Fatalf("header: %v", r.err)
		}
		return r
	case <-time.After(testTimeout):
		t.Fatal("nothing came to the server")
	}
	panic("unreachable")
}

func start(t *testing.T, o edgeOpts) *edge {
	t.Helper()
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.Logf = t.Logf
	e, err := startEdge(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Drain(0) })
	return e
}

// terminating is an edge that ends TLS with the certificates of dir.
func terminating(dir, upstream string) edgeOpts {
	return edgeOpts{
		Upstream: upstream,
		CertFile: filepath.Join(dir, certs.Server),
		KeyFile:  filepath.Join(dir, certs.ServerKey),
	}
}

func dialTLS(t *testing.T, e *edge, cfg *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: testTimeout}, "tcp", e.Addr().String(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(testTimeout))
	t.Cleanup(func() { c.Close() })
	return c
}

func dialTCP(t *testing.T, e *edge) *net.TCPConn {
	t.Helper()
	c, err := net.DialTimeout("tcp", e.Addr().String(), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(testTimeout))
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// tlv is the value of the one TLV of a type; nil when there is none.
func (r received) tlv(t *testing.T, kind proxyproto.PP2Type) []byte {
	t.Helper()
	tlvs, err := r.header.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	var found []byte
	for _, v := range tlvs {
		if v.Type == kind {
			if found != nil {
				t.Errorf("TLV %#x twice", byte(kind))
			}
			found = v.Value
		}
	}
	return found
}

func (r received) ssl(t *testing.T) (tlvparse.PP2SSL, bool) {
	t.Helper()
	tlvs, err := r.header.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	return tlvparse.FindSSL(tlvs)
}

// checkAddresses holds what every header must say: PROXY, the client's address
// and the edge's, and a checksum that is right.
func (r received) checkAddresses(t *testing.T, client net.Conn) {
	t.Helper()
	if r.header.Version != 2 || r.header.Command != proxyproto.PROXY {
		t.Errorf("version %d, command %v", r.header.Version, r.header.Command)
	}
	if got, want := r.header.SourceAddr.String(), client.LocalAddr().String(); got != want {
		t.Errorf("source %s, the client is %s", got, want)
	}
	if got, want := r.header.DestinationAddr.String(), client.RemoteAddr().String(); got != want {
		t.Errorf("destination %s, the edge is %s", got, want)
	}
	sum := r.tlv(t, proxyproto.PP2_TYPE_CRC32C)
	if len(sum) != crcLen {
		t.Fatalf("checksum of %d bytes", len(sum))
	}
	zeroed := bytes.Replace(r.raw, append([]byte{byte(proxyproto.PP2_TYPE_CRC32C), 0, crcLen}, sum...),
		[]byte{byte(proxyproto.PP2_TYPE_CRC32C), 0, crcLen, 0, 0, 0, 0}, 1)
	if got, want := binary.BigEndian.Uint32(sum), checksum(zeroed); got != want {
		t.Errorf("checksum %08x, want %08x", got, want)
	}
}

func TestEdgeDevSaysWhoTheClientIsAndWhatItsTLSIs(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	for name, version := range map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13} {
		for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
			t.Run(name+" "+listen, func(t *testing.T) {
				upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
				o := terminating(dir, upstream)
				o.Listen = listen
				e := start(t, o)
				c := dialTLS(t, e, &tls.Config{
					RootCAs: pool(t, dir), ServerName: "edge.example.test", MinVersion: version, MaxVersion: version,
				})
				r := receive(t, ch)
				r.checkAddresses(t, c)
				if got := string(r.tlv(t, proxyproto.PP2_TYPE_AUTHORITY)); got != "edge.example.test" {
					t.Errorf("authority %q", got)
				}
				if got := r.tlv(t, proxyproto.PP2_TYPE_ALPN); got != nil {
					t.Errorf("ALPN %q from a client that has none", got)
				}
				ssl, ok := r.ssl(t)
				if !ok {
					t.Fatal("no SSL TLV")
				}
				if ssl.Client != tlvparse.PP2_BITFIELD_CLIENT_SSL || ssl.Verify == 0 {
					t.Errorf("bits %#b, verify %d, want TLS without a certificate", ssl.Client, ssl.Verify)
				}
				if got, _ := ssl.SSLVersion(); got != name {
					t.Errorf("version %q", got)
				}
				if got, _ := ssl.SSLCipher(); got != tls.CipherSuiteName(c.ConnectionState().CipherSuite) {
					t.Errorf("cipher %q", got)
				}
				if got, ok := ssl.ClientCN(); ok {
					t.Errorf("CN %q of no certificate", got)
				}

				// And then the bytes, both ways, as they are.
				if _, err := r.conn.Write([]byte("INFO {}\r\n")); err != nil {
					t.Fatal(err)
				}
				if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "INFO {}\r\n" {
					t.Errorf("%q, %v", line, err)
				}
				if _, err := c.Write([]byte("CONNECT {}\r\n")); err != nil {
					t.Fatal(err)
				}
				if line, err := r.r.ReadString('\n'); err != nil || line != "CONNECT {}\r\n" {
					t.Errorf("%q, %v", line, err)
				}
			})
		}
	}
}

func TestEdgeDevRefusesOldTLS(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	upstream, _ := startServer(t, "tcp", "127.0.0.1:0")
	e := start(t, terminating(dir, upstream))
	_, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{
		RootCAs: pool(t, dir), ServerName: "localhost", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if err == nil {
		t.Fatal("TLS 1.1 accepted")
	}
}

func TestEdgeDevVouchesForAVerifiedClientCertificateOnly(t *testing.T) {
	dir := makeCerts(t, certs.Opts{ClientCN: "sensor-1"})
	stranger := makeCerts(t, certs.Opts{ClientCN: "sensor-1"})
	load := func(dir string) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, certs.Client), filepath.Join(dir, certs.ClientKey))
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	o := terminating(dir, upstream)
	o.ClientCAFile = filepath.Join(dir, certs.CA)
	e := start(t, o)

	cfg := &tls.Config{
		RootCAs: pool(t, dir), ServerName: "localhost", Certificates: load(dir),
		ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}
	const connBits = tlvparse.PP2_BITFIELD_CLIENT_SSL | tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
	for _, want := range []struct {
		what string
		bits uint8
	}{
		{"full handshake", connBits},
		{"resumed session", tlvparse.PP2_BITFIELD_CLIENT_SSL | tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS},
	} {
		c := dialTLS(t, e, cfg)
		r := receive(t, ch)
		ssl, _ := r.ssl(t)
		if ssl.Client != want.bits || ssl.Verify != 0 {
			t.Errorf("%s: bits %#b, verify %d", want.what, ssl.Client, ssl.Verify)
		}
		if cn, _ := ssl.ClientCN(); cn != "sensor-1" {
			t.Errorf("%s: CN %q", want.what, cn)
		}
		// The session ticket comes with the first bytes.
		r.conn.Write([]byte("x"))
		c.Read(make([]byte, 1))
		c.Close()
	}

	none := dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
	r := receive(t, ch)
	r.checkAddresses(t, none)
	if ssl, _ := r.ssl(t); ssl.Client != tlvparse.PP2_BITFIELD_CLIENT_SSL || ssl.Verify == 0 {
		t.Errorf("no certificate: bits %#b, verify %d", ssl.Client, ssl.Verify)
	}

	bad, err := tls.Dial("tcp", e.Addr().String(), &tls.Config{
		RootCAs: pool(t, dir), ServerName: "localhost", Certificates: load(stranger), MaxVersion: tls.VersionTLS12,
		// Sent although the edge names another CA.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &load(stranger)[0], nil
		},
	})
	if err == nil {
		bad.Close()
		t.Error("a stranger's certificate accepted")
	}
}

func TestEdgeDevSendsALPN(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	o := terminating(dir, upstream)
	o.ALPN = "nats,other"
	e := start(t, o)
	dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost", NextProtos: []string{"nats"}})
	if got := string(receive(t, ch).tlv(t, proxyproto.PP2_TYPE_ALPN)); got != "nats" {
		t.Errorf("ALPN %q", got)
	}
}

func TestEdgeDevPassthrough(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	e := start(t, edgeOpts{Upstream: upstream, Passthrough: true})
	c := dialTCP(t, e)
	// Before the client says a word.
	r := receive(t, ch)
	r.checkAddresses(t, c)
	if _, ok := r.ssl(t); ok {
		t.Error("an SSL TLV for TLS that did not end here")
	}

	// TLS from end to end.
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		s := tls.Server(r.conn, &tls.Config{Certificates: []tls.Certificate{pair}})
		s.Write([]byte("INFO\n"))
	}()
	client := tls.Client(c, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || line != "INFO\n" {
		t.Errorf("%q, %v", line, err)
	}
}

func TestEdgeDevEncryptsAgain(t *testing.T) {
	dir := makeCerts(t, certs.Opts{Hosts: []string{"nats.example.test", "localhost"}})
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey))
	if err != nil {
		t.Fatal(err)
	}
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	o := terminating(dir, upstream)
	o.UpstreamCAFile = filepath.Join(dir, certs.CA)
	o.UpstreamName = "nats.example.test"
	e := start(t, o)
	c := dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
	r := receive(t, ch) // the header, in the clear
	r.checkAddresses(t, c)
	if ssl, _ := r.ssl(t); !ssl.ClientSSL() {
		t.Error("no proof of the client's TLS")
	}
	s := tls.Server(r.conn, &tls.Config{Certificates: []tls.Certificate{pair}})
	if _, err := s.Write([]byte("INFO\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "INFO\n" {
		t.Errorf("%q, %v", line, err)
	}
	if name := s.ConnectionState().ServerName; name != "nats.example.test" {
		t.Errorf("SNI to the server %q", name)
	}

	// A server that the CA does not vouch for gets no client.
	o.UpstreamCAFile = filepath.Join(makeCerts(t, certs.Opts{}), certs.CA)
	c = dialTLS(t, start(t, o), &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
	r = receive(t, ch)
	if err := tls.Server(r.conn, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake(); err == nil {
		// With TLS 1.3 the refusal comes after the handshake.
		if _, err := r.conn.Read(make([]byte, 1)); err == nil {
			t.Log("alert read")
		}
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from a server that is not to be trusted", n)
	}
}

func TestEdgeDevHalfClose(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	for _, passthrough := range []bool{false, true} {
		upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
		o := terminating(dir, upstream)
		if passthrough {
			o = edgeOpts{Upstream: upstream, Passthrough: true}
		}
		e := start(t, o)
		var c halfConn
		if passthrough {
			c = dialTCP(t, e)
		} else {
			c = dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
		}
		r := receive(t, ch)
		if _, err := c.Write([]byte("the end")); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r.r); err != nil || string(got) != "the end" {
			t.Fatalf("passthrough %v: server read %q, %v", passthrough, got, err)
		}
		// The other direction is still open.
		if _, err := r.conn.Write([]byte("+OK")); err != nil {
			t.Fatal(err)
		}
		r.conn.Close()
		if got, err := io.ReadAll(c); err != nil || string(got) != "+OK" {
			t.Errorf("passthrough %v: client read %q, %v", passthrough, got, err)
		}
	}
}

func TestEdgeDevUnixSocketUpstream(t *testing.T) {
	// Not t.TempDir: a socket's path must be short.
	dir, err := os.MkdirTemp("", "edge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, ch := startServer(t, "unix", filepath.Join(dir, "s"))
	e := start(t, edgeOpts{Upstream: "unix:" + path, Passthrough: true})
	c := dialTCP(t, e)
	receive(t, ch).checkAddresses(t, c)
}

func TestEdgeDevReload(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	e := start(t, terminating(dir, upstream))
	serial := func() string {
		c := dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
		receive(t, ch)
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	old := dialTLS(t, e, &tls.Config{RootCAs: pool(t, dir), ServerName: "localhost"})
	r := receive(t, ch)

	if _, err := certs.Write(dir, certs.Opts{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(); err != nil {
		t.Fatal(err)
	}
	after := serial()
	if after == before {
		t.Error("the old certificate after a reload")
	}

	if err := os.WriteFile(filepath.Join(dir, certs.ServerKey), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(); err == nil {
		t.Error("reload of a broken key: no error")
	}
	if serial() != after {
		t.Error("a failed reload changed something")
	}

	if _, err := r.conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Read(make([]byte, 1)); err != nil {
		t.Errorf("a reload cut a connection: %v", err)
	}
}

func TestEdgeDevDrain(t *testing.T) {
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	opts := edgeOpts{Upstream: upstream, Passthrough: true}

	t.Run("ends as soon as the last connection", func(t *testing.T) {
		e := start(t, opts)
		c := dialTCP(t, e)
		r := receive(t, ch)
		left := make(chan int)
		go func() { left <- e.Drain(time.Minute) }()
		// No new ones, and the one at hand still works.
		for {
			n, err := net.Dial("tcp", e.Addr().String())
			if err != nil {
				break
			}
			n.Close()
		}
		if _, err := r.conn.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatalf("cut while draining: %v", err)
		}
		c.Close()
		r.conn.Close()
		select {
		case n := <-left:
			if n != 0 {
				t.Errorf("%d closed by force", n)
			}
		case <-time.After(testTimeout):
			t.Fatal("waits with nothing to wait for")
		}
	})

	t.Run("closes what is left at the bound", func(t *testing.T) {
		e := start(t, opts)
		c := dialTCP(t, e)
		receive(t, ch)
		if n := e.Drain(50 * time.Millisecond); n != 1 {
			t.Errorf("%d closed by force, want 1", n)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	})

	t.Run("does not wait for a handshake that never comes", func(t *testing.T) {
		e := start(t, terminating(makeCerts(t, certs.Opts{}), upstream))
		c := dialTCP(t, e)
		time.Sleep(50 * time.Millisecond)
		begin := time.Now()
		e.Drain(50 * time.Millisecond)
		if d := time.Since(begin); d > testTimeout {
			t.Errorf("took %v", d)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("still open")
		}
	})
}

func TestEdgeDevClosesWhomItCannotServe(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	upstream, ch := startServer(t, "tcp", "127.0.0.1:0")
	o := terminating(dir, upstream)
	o.HandshakeTimeout = 100 * time.Millisecond
	e := start(t, o)

	silent := dialTCP(t, e)
	if n, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a client that never speaks: %d bytes, %v", n, err)
	}
	plain := dialTCP(t, e)
	plain.Write([]byte("CONNECT {}\r\nPING\r\n"))
	if got, _ := io.ReadAll(plain); strings.Contains(string(got), "INFO") {
		t.Errorf("a client without TLS got %q", got)
	}
	select {
	case r := <-ch:
		t.Errorf("the server heard of them: %q", r.raw)
	default:
	}

	// Nobody listens there.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	alone := start(t, edgeOpts{Upstream: l.Addr().String(), Passthrough: true})
	if _, err := dialTCP(t, alone).Read(make([]byte, 1)); err == nil {
		t.Error("open with no server")
	}
}

func TestEdgeDevFlags(t *testing.T) {
	dir := makeCerts(t, certs.Opts{})
	good := terminating(dir, "127.0.0.1:1")
	for name, tc := range map[string]struct {
		change func(*edgeOpts)
		want   string
	}{
		"no certificate":              {func(o *edgeOpts) { o.CertFile = "" }, "-cert and -key are required"},
		"no key":                      {func(o *edgeOpts) { o.KeyFile = "" }, "-cert and -key are required"},
		"passthrough with cert":       {func(o *edgeOpts) { o.Passthrough = true; o.KeyFile = "" }, "-cert has no meaning with -passthrough"},
		"name without CA":             {func(o *edgeOpts) { o.UpstreamName = "x" }, "-upstream-name has no meaning"},
		"certificate is not there":    {func(o *edgeOpts) { o.CertFile = "/nowhere.pem" }, "/nowhere.pem"},
		"CA is no certificate":        {func(o *edgeOpts) { o.ClientCAFile = o.KeyFile }, "no certificate in it"},
		"a name is needed for a unix": {func(o *edgeOpts) { o.UpstreamCAFile = filepath.Join(dir, certs.CA); o.Upstream = "unix:/x" }, "no -upstream-name"},
		"address":                     {func(o *edgeOpts) { o.Listen = "nowhere" }, "missing port"},
	} {
		o := good
		o.Listen = "127.0.0.1:0"
		tc.change(&o)
		e, err := startEdge(o)
		if err == nil {
			e.Drain(0)
			t.Errorf("%s: no error", name)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %q, want %q", name, err, tc.want)
		}
	}
}
