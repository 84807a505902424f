package test

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nats-trusted-proxy/scripts/devcert/certs"
)

func TestListenerPlain(t *testing.T) {
	s, log := runServer(t, `listeners { extra { listen: "127.0.0.1:-1" } }`)
	addr := listenerAddr(t, s, "extra")
	require_Contains(t, log.String(), fmt.Sprintf(`Listening for client connections on %s (listener "extra")`, addr))

	c := dialRaw(t, addr)
	i := c.info()
	require_Equal(t, i.tls(), "")
	require_Equal(t, fmt.Sprintf("%v:%v", i["host"], i["port"]), addr)
	roundTrip(t, connectNATS(t, s.ClientURL()), connectNATS(t, "nats://"+addr))
}

func TestListenerTrustedProxy(t *testing.T) {
	s, log := runServer(t, trustedConf)
	require_Contains(t, log.String(), `PROXY protocol required on listener "edge", trusted: 127.0.0.1, ::1`)
	inside := connectNATS(t, s.ClientURL())
	for _, version := range []byte{1, 2} {
		for _, src := range []string{"203.0.113.7:51234", "[2001:db8::7]:51234"} {
			h := header(t, version, src)
			i := dialRaw(t, listenerAddr(t, s, "edge"), h).info()
			host, _, _ := net.SplitHostPort(src)
			require_Equal(t, i["client_ip"], any(host))
			roundTrip(t, inside, connectThrough(t, s, "edge", h))
		}
	}
}

// G2: nothing is sent before the header is complete, wherever it is cut.
func TestProxyProtoG2NothingIsSentBeforeTheHeader(t *testing.T) {
	s, _ := runServer(t, trustedConf)
	h := header(t, 2, "203.0.113.7:51234", sslTLV(1, 0))
	for cut := 0; cut < len(h); cut += 7 {
		c := dialRaw(t, listenerAddr(t, s, "edge"), h[:cut])
		require_NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !os.IsTimeout(err) {
			t.Fatalf("cut at %d: got %d bytes and %v before the header was complete", cut, n, err)
		}
		_, err := c.Write(h[cut:])
		require_NoError(t, err)
		require_Equal(t, c.info()["client_ip"], any("203.0.113.7"))
	}
	if conns := connz(t, s, "?state=open"); len(conns) == 0 {
		t.Fatal("no connection is listed")
	}
}

// G2: what follows the header in the same segment reaches NATS, in order.
func TestProxyProtoG2BytesAfterTheHeaderReachNATS(t *testing.T) {
	s, _ := runServer(t, trustedConf)
	for _, version := range []byte{1, 2} {
		msg := append(header(t, version, "203.0.113.7:51234"),
			"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 5\r\nhello\r\nPING\r\n"...)
		c := dialRaw(t, listenerAddr(t, s, "edge"), msg)
		c.info()
		for _, want := range []string{"MSG a 1 5", "hello", "PONG"} {
			require_Equal(t, c.line(), want)
		}
	}
}

func TestProxyProtoG5UntrustedPeer(t *testing.T) {
	s, log := runServer(t, `listeners { edge { listen: "127.0.0.1:-1", proxy_protocol { trusted: ["192.0.2.0/24"] } } }`)
	c := dialRaw(t, listenerAddr(t, s, "edge"))
	c.closedWithout()
	checkFor(t, func() error {
		if log.count("WRN", `Listener "edge": connection from 127.0.0.1 refused: not a trusted proxy`) != 1 {
			return fmt.Errorf("no reason in the log:\n%s", log)
		}
		return nil
	})
	require_Equal(t, len(connz(t, s, "?state=all")), 0)
}

// The remote address is the client's on both kinds of health check as well: its own.
func TestProxyProtoB2LocalIsAcceptedWithItsOwnAddress(t *testing.T) {
	s, _ := runServer(t, trustedConf)
	for _, h := range [][]byte{localHeader(t), []byte("PROXY UNKNOWN\r\n")} {
		c := dialRaw(t, listenerAddr(t, s, "edge"), h)
		i := c.info()
		require_Equal(t, i["client_ip"], any("127.0.0.1"))
		require_Equal(t, i.tls(), "")
		c.connect(`,"name":"local"`)
		conns := connz(t, s, "")
		require_Equal(t, len(conns), 1)
		require_Equal(t, conns[0].ProxiedBy, "")
		require_Equal(t, conns[0].Listener, "edge")
		require_Equal(t, fmt.Sprintf("%s:%d", conns[0].IP, conns[0].Port), c.LocalAddr().String())
		c.Close()
		checkFor(t, func() error {
			if n := len(connz(t, s, "")); n != 0 {
				return fmt.Errorf("%d connections are left", n)
			}
			return nil
		})
	}
}

func TestProxyProtoG4NoHeader(t *testing.T) {
	s, log := runServer(t, trustedConf)
	for _, c := range []struct{ name, send, answer, reason string }{
		{"NATS client", "CONNECT {\"verbose\":false}\r\nPING\r\n", "-ERR 'Listener edge is for edge proxies", "nats_client"},
		{"TLS client", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", "tls_client_hello"},
		{"HTTP client", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "http"},
		{"nonsense", "hello there, is this the right port?\r\n", "", "no_header"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dialRaw(t, listenerAddr(t, s, "edge"), []byte(c.send))
			if c.answer != "" {
				require_Contains(t, r.line(), c.answer)
			}
			r.closedWithout()
			checkFor(t, func() error {
				if log.count("DBG", "refused", "("+c.reason+")") == 0 {
					return fmt.Errorf("reason %s is not in the log:\n%s", c.reason, log)
				}
				return nil
			})
		})
	}
	if n := len(connz(t, s, "?state=all")); n != 0 {
		t.Fatalf("%d refused connections are listed as clients", n)
	}
}

// G3: one deadline, which bytes that drip do not move.
func TestProxyProtoG3OneDeadlineForTheHeader(t *testing.T) {
	s, _ := runServer(t, `listeners { edge { listen: "127.0.0.1:-1",
		proxy_protocol { trusted: ["127.0.0.1"], header_timeout: "3s" } } }`)
	start := time.Now()
	silent := dialRaw(t, listenerAddr(t, s, "edge"))
	drips := dialRaw(t, listenerAddr(t, s, "edge"))
	go func() {
		for _, b := range header(t, 2, "203.0.113.7:1", sslTLV(1, 0)) {
			if _, err := drips.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	drips.closedWithout()
	require_Contains(t, silent.line(), "-ERR 'Listener edge is for edge proxies")
	silent.closedWithout()
	if took := time.Since(start); took < 2900*time.Millisecond || took > 10*time.Second {
		t.Fatalf("closed after %v, want about 3s", took)
	}
}

func TestListenerInfo(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	globalTLS := fmt.Sprintf("tls { cert_file: %q, key_file: %q }\nallow_non_tls: true\n",
		filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey))
	proofs := []struct {
		name   string
		header []byte
		proved bool
	}{
		{"v1", header(t, 1, "203.0.113.7:1"), false},
		{"v2 without SSL TLV", header(t, 2, "203.0.113.7:1"), false},
		{"SSL TLV, client leg plain", header(t, 2, "203.0.113.7:1", sslTLV(0, 0)), false},
		{"SSL TLV, verify 0 alone", header(t, 2, "203.0.113.7:1", sslTLV(6, 0)), false},
		{"SSL TLV, client leg TLS", header(t, 2, "203.0.113.7:1", sslTLV(1, 1)), true},
		{"LOCAL", localHeader(t), false},
	}
	for _, global := range []string{"", globalTLS} {
		for _, policy := range []string{"", "never", "auto", "available", "required"} {
			line := ""
			if policy != "" {
				line = "advertise_tls: " + policy
			}
			s, _ := runServer(t, global+fmt.Sprintf(`listeners { edge { listen: "127.0.0.1:-1", %s
				proxy_protocol { trusted: ["127.0.0.1"] } } }`, line+"\n"))
			for _, p := range proofs {
				want := ""
				switch {
				case policy == "available", (policy == "auto" || policy == "") && p.proved:
					want = "tls_available=true"
				case policy == "required":
					want = "tls_required=true"
				}
				c := dialRaw(t, listenerAddr(t, s, "edge"), p.header)
				first := c.info()
				before, after := c.connect("")
				if len(before) != 0 {
					t.Fatalf("between the first INFO and the PONG: %q", before)
				}
				for which, i := range map[string]info{"first": first, "second": after} {
					if i.tls() != want {
						t.Errorf("global tls %v, advertise_tls %q, %s: %s INFO says %q, want %q",
							global != "", policy, p.name, which, i.tls(), want)
					}
					require_Equal(t, i.connectURLs(), "")
				}
				c.Close()
			}
			s.Shutdown()
		}
	}
}

func TestListenerAdvertise(t *testing.T) {
	s, _ := runServer(t, `listeners {
		edge { listen: "127.0.0.1:-1", advertise: ["nats.example.com:4443", "nats2.example.com:4443"], proxy_protocol { trusted: ["127.0.0.1"] } }
		quiet { listen: "127.0.0.1:-1", no_advertise: true }
	}
	cluster { name: c, listen: "127.0.0.1:-1" }`)
	c := dialRaw(t, listenerAddr(t, s, "edge"), header(t, 2, "203.0.113.7:1"))
	for _, i := range []info{c.info(), second(c)} {
		require_Equal(t, i.connectURLs(), "nats.example.com:4443 nats2.example.com:4443")
		require_Equal(t, fmt.Sprintf("%v:%v", i["host"], i["port"]), "nats.example.com:4443")
	}
	q := dialRaw(t, listenerAddr(t, s, "quiet"))
	require_Equal(t, q.info().connectURLs(), "")
	require_Equal(t, second(q).connectURLs(), "")
}

func second(c *rawClient) info {
	_, i := c.connect("")
	return i
}

func TestListenerConnz(t *testing.T) {
	s, _ := runServer(t, trustedConf)
	nc := connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:51234"), nats.Name("far"))
	main := connectNATS(t, s.ClientURL(), nats.Name("near"))
	check := func(conns []connInfo) {
		t.Helper()
		require_Equal(t, len(conns), 2)
		for _, ci := range conns {
			if ci.Name == "near" {
				require_Equal(t, ci.Listener+ci.ProxiedBy, "")
				continue
			}
			require_Equal(t, ci.IP, "203.0.113.7")
			require_Equal(t, ci.Port, 51234)
			require_Equal(t, ci.Listener, "edge")
			require_Equal(t, strings.HasPrefix(ci.ProxiedBy, "127.0.0.1:"), true)
		}
	}
	check(connz(t, s, ""))
	nc.Close()
	main.Close()
	checkFor(t, func() error {
		if n := len(connz(t, s, "?state=closed")); n != 2 {
			return fmt.Errorf("%d closed connections", n)
		}
		return nil
	})
	check(connz(t, s, "?state=closed"))
}

func TestListenerUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.sock")
	s, _ := runServer(t, fmt.Sprintf(`listeners {
		edge { listen: "unix:%s", socket_mode: "0600", proxy_protocol {} }
	}`, path))
	fi, err := os.Stat(path)
	require_NoError(t, err)
	require_Equal(t, fi.Mode().Perm(), os.FileMode(0o600))
	nc := connectNATS(t, "nats://127.0.0.1:1", nats.SetCustomDialer(proxyDialer{path, header(t, 2, "203.0.113.7:51234")}))
	roundTrip(t, connectNATS(t, s.ClientURL()), nc)
	var found bool
	for _, ci := range connz(t, s, "") {
		if ci.Listener == "edge" {
			found = true
			require_Equal(t, ci.IP, "203.0.113.7")
			require_Equal(t, ci.ProxiedBy, "unix:"+path)
		}
	}
	require_Equal(t, found, true)
	local := dialRaw(t, path, localHeader(t))
	if ip, ok := local.info()["client_ip"]; ok {
		t.Fatalf("client_ip is %v for a client without an IP address", ip)
	}
	// A reload that changes the permissions sets them on the socket that is there.
	conf, err := os.ReadFile(configPath(s))
	require_NoError(t, err)
	rewrite(t, s, strings.Replace(string(conf), "0600", "0666", 1))
	require_NoError(t, s.Reload())
	fi, err = os.Stat(path)
	require_NoError(t, err)
	require_Equal(t, fi.Mode().Perm(), os.FileMode(0o666))
	require_NoError(t, nc.Flush())

	s.Shutdown()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatalf("socket is left behind: %v", err)
	}
}

// tlsListener is a tls block with the certificates of dir and more lines.
func tlsBlock(dir string, more string) string {
	return fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q\n%s }",
		filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey), filepath.Join(dir, certs.CA), more)
}

// Each combination of header, TLS and TLS first, with what a client sees.
func TestListenerTLS(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	roots := nats.Secure(&tls.Config{RootCAs: caPool(t, dir), ServerName: "localhost"})
	h := header(t, 2, "203.0.113.7:51234", sslTLV(1, 0))
	for _, withHeader := range []bool{false, true} {
		for _, first := range []string{"", "handshake_first: true", "handshake_first: auto"} {
			for _, allowNonTLS := range []bool{false, true} {
				name := fmt.Sprintf("header=%v %s allow_non_tls=%v", withHeader, first, allowNonTLS)
				t.Run(name, func(t *testing.T) {
					pp := ""
					if withHeader {
						pp = `proxy_protocol { trusted: ["127.0.0.1"] }`
					}
					s, _ := runServer(t, fmt.Sprintf("listeners { tlsport { listen: \"127.0.0.1:-1\"\n allow_non_tls: %v\n%s\n%s } }",
						allowNonTLS, pp, tlsBlock(dir, first)))
					dial := proxyDialer{addr: listenerAddr(t, s, "tlsport")}
					if withHeader {
						dial.header = h
					}
					inside := connectNATS(t, s.ClientURL())
					want := info{"tls_required": true}
					if allowNonTLS && first == "" {
						want = info{"tls_available": true}
					}
					// The ordinary upgrade.
					if first != "handshake_first: true" {
						c := dialRaw(t, dial.addr, dial.header)
						i := c.info()
						if first != "" && allowNonTLS {
							want = info{"tls_available": true}
						}
						require_Equal(t, i.tls(), want.tls())
						c.Close()
						nc := connectNATS(t, "tls://localhost:1", roots, nats.SetCustomDialer(dial))
						roundTrip(t, inside, nc)
					}
					// TLS first.
					if first != "" {
						nc := connectNATS(t, "tls://localhost:1", roots, nats.TLSHandshakeFirst(), nats.SetCustomDialer(dial))
						roundTrip(t, inside, nc)
						conns := connz(t, s, "?sort=start")
						ci := conns[len(conns)-1]
						require_Equal(t, ci.TLS, "1.3")
						require_Equal(t, ci.Listener, "tlsport")
						if withHeader {
							require_Equal(t, ci.IP, "203.0.113.7")
						}
					}
					// Without TLS.
					plain, err := nats.Connect("nats://127.0.0.1:1", nats.SetCustomDialer(dial), nats.Timeout(2*time.Second), nats.NoReconnect())
					if err == nil {
						plain.Close()
					}
					if allowed := allowNonTLS && first != "handshake_first: true"; (err == nil) != allowed {
						t.Fatalf("plain client: %v, want allowed: %v", err, allowed)
					}
				})
			}
		}
	}
}

func TestListenerTLSVerifyAndMap(t *testing.T) {
	dir := testCerts(t, certs.Opts{ClientCN: "app"})
	other := testCerts(t, certs.Opts{ClientCN: "app"}) // of another CA
	for _, withHeader := range []bool{false, true} {
		pp, h := "", []byte(nil)
		if withHeader {
			pp, h = `proxy_protocol { trusted: ["127.0.0.1"] }`, header(t, 2, "203.0.113.7:51234")
		}
		s, _ := runServer(t, fmt.Sprintf(`
			accounts { A { users: [ { user: "CN=app" }, { user: near, password: pw } ] } }
			listeners { partners { listen: "127.0.0.1:-1"
			%s
			%s } }`, pp, tlsBlock(dir, "verify_and_map: true")))
		dial := proxyDialer{listenerAddr(t, s, "partners"), h}
		connect := func(certDir string) (*nats.Conn, error) {
			cfg := &tls.Config{RootCAs: caPool(t, dir), ServerName: "localhost"}
			if certDir != "" {
				cfg.Certificates = []tls.Certificate{clientCert(t, certDir)}
			}
			return nats.Connect("tls://localhost:1", nats.Secure(cfg), nats.SetCustomDialer(dial), nats.Timeout(deadline), nats.NoReconnect())
		}
		nc, err := connect(dir)
		require_NoError(t, err)
		defer nc.Close()
		require_Equal(t, connz(t, s, "?auth=true")[0].User, "CN=app")
		roundTrip(t, connectNATS(t, s.ClientURL(), nats.UserInfo("near", "pw")), nc)
		for _, bad := range []string{"", other} {
			if nc, err := connect(bad); err == nil {
				nc.Close()
				t.Fatalf("connected with the certificate of %q", bad)
			}
		}
		// The certificate's user has no password: nobody may be it without the
		// certificate, on the main port least of all.
		if nc, err := nats.Connect(s.ClientURL(), nats.UserInfo("CN=app", ""), nats.NoReconnect()); err == nil {
			nc.Close()
			t.Fatal("logged in as the certificate's user with an empty password")
		}
		s.Shutdown()
	}
}

func TestListenerTLSPinnedCerts(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	s, _ := runServer(t, fmt.Sprintf(`listeners {
		pinned { listen: "127.0.0.1:-1", %s }
		wrong { listen: "127.0.0.1:-1", %s }
	}`, tlsBlock(dir, fmt.Sprintf("verify: true, pinned_certs: [%q]", spki(t, dir))),
		tlsBlock(dir, fmt.Sprintf("verify: true, pinned_certs: [%q]", strings.Repeat("0", 64)))))
	cfg := nats.Secure(&tls.Config{RootCAs: caPool(t, dir), Certificates: []tls.Certificate{clientCert(t, dir)}})
	roundTrip(t, connectNATS(t, s.ClientURL()), connectNATS(t, "tls://"+listenerAddr(t, s, "pinned"), cfg))
	if nc, err := nats.Connect("tls://"+listenerAddr(t, s, "wrong"), cfg, nats.NoReconnect()); err == nil {
		nc.Close()
		t.Fatal("connected with a certificate that is not pinned")
	}
}

// ocsp_peer is a part of the tls block that upstream wires up in another place:
// without it a certificate is not asked for its OCSP state at all.
func TestListenerTLSOCSPPeer(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	s, log := runServer(t, fmt.Sprintf(`listeners { ocsp { listen: "127.0.0.1:-1", %s } }`,
		tlsBlock(dir, "verify: true, ocsp_peer: { verify: true, unknown_is_good: false }")))
	connectNATS(t, "tls://"+listenerAddr(t, s, "ocsp"),
		nats.Secure(&tls.Config{RootCAs: caPool(t, dir), Certificates: []tls.Certificate{clientCert(t, dir)}}))
	// No certificate here names a responder, so that this client is let in; that
	// its chain was looked at is what there is to see.
	if log.count("DBG", "OCSP", "chain(s) will be evaluated") == 0 {
		t.Fatalf("no chain was evaluated for OCSP:\n%s", log)
	}
}

func TestListenerNoAuthUserIsForInside(t *testing.T) {
	s, _ := runServer(t, `
		accounts { A { users: [ { user: guest, password: pw } ] } }
		no_auth_user: guest
		`+trustedConf)
	connectNATS(t, s.ClientURL())
	c := dialRaw(t, listenerAddr(t, s, "edge"), header(t, 2, "203.0.113.7:1"))
	require_Equal(t, c.info()["auth_required"], any(true))
	// Both ways in: CONNECT, and the parser's way for those that send none.
	c.send("CONNECT {\"verbose\":false}\r\nPING\r\n")
	require_Contains(t, c.line(), "Authorization Violation")
	c = dialRaw(t, listenerAddr(t, s, "edge"), header(t, 2, "203.0.113.7:1"))
	c.info()
	c.send("PUB a 0\r\n\r\nPING\r\n")
	require_Contains(t, c.line(), "Authorization Violation")
	connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1"), nats.UserInfo("guest", "pw"))
}

// Where only the system account has users there is no authentication for others.
func TestListenerWithSystemAccountOnly(t *testing.T) {
	s, _ := runServer(t, `accounts { $SYS { users: [ { user: admin, password: pw } ] } }`+trustedConf)
	roundTrip(t, connectNATS(t, s.ClientURL()), connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1")))
	stays := connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1"))
	require_NoError(t, s.Reload())
	roundTrip(t, connectNATS(t, s.ClientURL()), connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1")))
	roundTrip(t, connectNATS(t, s.ClientURL()), stays)
}

// A reload that takes a token away closes the clients that came with it, and no
// others. The token is looked up in the options, which for these clients are made
// for their listener.
func TestListenerReloadRevokesCredentials(t *testing.T) {
	conf := mainConf + "authorization { token: %s }\n" + trustedConf
	s, _ := runServerWithConfig(t, createConfFile(t, fmt.Sprintf(conf, "old")))
	h := header(t, 2, "203.0.113.7:1")
	revoked := connectThrough(t, s, "edge", h, nats.Token("old"))
	rewrite(t, s, fmt.Sprintf(conf, "new"))
	require_NoError(t, s.Reload())
	checkFor(t, func() error {
		if !revoked.IsClosed() {
			return fmt.Errorf("the client with the old token is %v", revoked.Status())
		}
		return nil
	})
	stays := connectThrough(t, s, "edge", h, nats.Token("new"))
	require_NoError(t, s.Reload())
	require_NoError(t, stays.Flush())
}

// Upstream's own proxy_protocol, for the main port, does not reach a listener.
func TestListenerBesideUpstreamsProxyProtocol(t *testing.T) {
	s, _ := runServer(t, "proxy_protocol: true\n"+trustedConf)
	for _, h := range [][]byte{header(t, 1, "203.0.113.7:1"), header(t, 2, "203.0.113.7:1", sslTLV(1, 0))} {
		c := dialRaw(t, listenerAddr(t, s, "edge"), h)
		require_Equal(t, c.info()["client_ip"], any("203.0.113.7"))
		before, _ := c.connect("")
		require_Equal(t, len(before), 0)
		// A second header is no header.
		c = dialRaw(t, listenerAddr(t, s, "edge"), h, h)
		c.info()
		require_Contains(t, c.line(), "-ERR")
	}
}

func TestListenerShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	s, _ := runServer(t, trustedConf)
	addr := listenerAddr(t, s, "edge")
	waiting := dialRaw(t, addr) // its header never comes
	half := dialRaw(t, addr, header(t, 2, "203.0.113.7:1")[:9])
	nc := connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1"))
	closed := make(chan struct{})
	nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
	start := time.Now()
	s.Shutdown()
	s.WaitForShutdown()
	if took := time.Since(start); took > 4*time.Second {
		t.Fatalf("shutdown took %v, it waited for a header", took)
	}
	waiting.closedWithout()
	half.closedWithout()
	select {
	case <-closed:
	case <-time.After(deadline):
		t.Fatal("the client was not closed")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("the port is still open")
	}
	waiting.Close()
	half.Close()
	checkFor(t, func() error {
		if n := runtime.NumGoroutine(); n > before+2 {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
}

func TestListenerLameDuck(t *testing.T) {
	s, log := runServer(t, trustedConf, func(o *server.Options) {
		// Less than a configuration may ask for.
		o.LameDuckDuration, o.LameDuckGracePeriod = 4*time.Second, 3*time.Second
	})
	addr := listenerAddr(t, s, "edge")
	waiting := dialRaw(t, addr)
	c := dialRaw(t, addr, header(t, 2, "203.0.113.7:1", sslTLV(1, 0)))
	require_Equal(t, c.info().tls(), "tls_available=true")
	c.connect("")
	done := make(chan struct{})
	go func() { s.LameDuckShutdown(); close(done) }()
	waiting.closedWithout()
	i := c.info()
	require_Equal(t, i["ldm"], any(true))
	require_Equal(t, i.tls(), "tls_available=true")
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("the port is open in lame duck mode")
	}
	if !s.Running() {
		t.Fatal("this was not lame duck mode, but the end of it")
	}
	select {
	case <-done:
	case <-time.After(deadline):
		t.Fatalf("lame duck does not end:\n%s", log)
	}
}

func TestListenerReadiness(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require_NoError(t, err)
	defer taken.Close()
	s, log := newServerWithConfig(t, createConfFile(t, fmt.Sprintf(`
		listen: 127.0.0.1:-1
		listeners { edge { listen: %q, proxy_protocol { trusted: ["127.0.0.1"] } } }`, taken.Addr())))
	go s.Start()
	checkFor(t, func() error {
		if log.count("FTL", `for listener "edge"`, taken.Addr().String(), "address already in use") != 1 {
			return fmt.Errorf("no reason in the log:\n%s", log)
		}
		return nil
	})
	if s.ReadyForConnections(100 * time.Millisecond) {
		t.Fatal("ready without one of its ports")
	}
}

// rewrite puts another configuration in the place of the server's.
func rewrite(t testing.TB, s *server.Server, conf string) {
	t.Helper()
	require_NoError(t, os.WriteFile(configPath(s), []byte(conf), 0o600))
}

func TestListenerReload(t *testing.T) {
	conf := func(listeners string) string {
		return mainConf + "listeners {\n" + listeners + "\n}\n"
	}
	edge := `edge { listen: "127.0.0.1:-1", proxy_protocol { trusted: ["127.0.0.1"] } }`
	s, log := runServerWithConfig(t, createConfFile(t, conf(edge)))
	h := header(t, 2, "203.0.113.7:1", sslTLV(1, 0))
	stays := connectThrough(t, s, "edge", h)
	addr := listenerAddr(t, s, "edge")

	// One is added, and what the other one says of TLS is changed: its port and
	// its client stay.
	rewrite(t, s, conf(strings.Replace(edge, "proxy_protocol", "advertise_tls: never, advertise: \"a.example.com:1\", proxy_protocol", 1)+
		"\nextra { listen: \"127.0.0.1:-1\" }"))
	require_NoError(t, s.Reload())
	require_Equal(t, listenerAddr(t, s, "edge"), addr)
	i := dialRaw(t, addr, h).info()
	require_Equal(t, i.tls(), "")
	require_Equal(t, i.connectURLs(), "a.example.com:1")
	roundTrip(t, stays, connectNATS(t, "nats://"+listenerAddr(t, s, "extra")))

	// The trust list is in force for the next connection.
	rewrite(t, s, conf(strings.Replace(edge, "127.0.0.1\"]", "192.0.2.1\"]", 1)))
	require_NoError(t, s.Reload())
	dialRaw(t, addr).closedWithout()
	if s.ListenerAddr("extra") != nil {
		t.Fatal("a removed listener is still there")
	}

	// A port that cannot be had changes nothing.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require_NoError(t, err)
	defer taken.Close()
	rewrite(t, s, conf(edge+fmt.Sprintf("\nnew { listen: %q }", taken.Addr())))
	if err := s.Reload(); err == nil || !strings.Contains(err.Error(), `for listener "new"`) {
		t.Fatalf("reload with a port that is taken: %v", err)
	}
	dialRaw(t, addr).closedWithout() // still not trusted

	// A moved one: the new port opens, the old one closes, the client stays.
	moved := freePort(t)
	rewrite(t, s, conf(strings.Replace(edge, ":-1", fmt.Sprintf(":%d", moved), 1)))
	require_NoError(t, s.Reload())
	require_Equal(t, listenerAddr(t, s, "edge"), fmt.Sprintf("127.0.0.1:%d", moved))
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Fatal("the old port is still open")
	}
	roundTrip(t, stays, connectThrough(t, s, "edge", h))
	require_Contains(t, log.String(), `Reloaded: listener "extra" removed`, `Reloaded: listener "edge" changed`)
}

func TestListenerReloadPinnedCerts(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	pin := spki(t, dir)
	conf := func(mainPin, listenerPin string) string {
		return mainConf + fmt.Sprintf("%s\nlisteners {\nedge { listen: \"127.0.0.1:-1\", proxy_protocol { trusted: [\"127.0.0.1\"] } }\npinned { listen: \"127.0.0.1:-1\", %s }\n}\n",
			tlsBlock(dir, fmt.Sprintf("verify: true, pinned_certs: [%q]", mainPin)),
			tlsBlock(dir, fmt.Sprintf("verify: true, pinned_certs: [%q]", listenerPin)))
	}
	s, _ := runServerWithConfig(t, createConfFile(t, conf(pin, pin)))
	edge := connectThrough(t, s, "edge", header(t, 2, "203.0.113.7:1"))
	pinned := connectNATS(t, "tls://"+listenerAddr(t, s, "pinned"),
		nats.Secure(&tls.Config{RootCAs: caPool(t, dir), Certificates: []tls.Certificate{clientCert(t, dir)}}))

	rewrite(t, s, conf(strings.Repeat("0", 64), pin))
	require_NoError(t, s.Reload())
	roundTrip(t, edge, pinned)

	rewrite(t, s, conf(pin, strings.Repeat("0", 64)))
	require_NoError(t, s.Reload())
	checkFor(t, func() error {
		if !pinned.IsClosed() {
			return fmt.Errorf("the client with the certificate that is not pinned any more is %v", pinned.Status())
		}
		return nil
	})
	require_NoError(t, edge.Flush())
}
