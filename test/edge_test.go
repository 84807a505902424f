package test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nats-trusted-proxy/scripts/devcert/certs"
)

// haproxy is a real one that ends TLS and sends a PROXY header.
type haproxy struct {
	*process
	addr   string // where clients connect
	addr6  string
	dir    string
	config string
}

// runHAProxy starts it in front of a server port. send is its option for the
// header, as `send-proxy-v2-ssl`; bind and server are added to those lines.
func runHAProxy(t testing.TB, dir, backend, send, bind, serverOpts string) *haproxy {
	t.Helper()
	path := need(t, "haproxy")
	h := &haproxy{dir: dir, config: filepath.Join(t.TempDir(), "haproxy.cfg")}
	port, port6 := freePort(t), freePort(t)
	h.addr, h.addr6 = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("[::1]:%d", port6)
	if bind == "" {
		bind = "ssl crt " + filepath.Join(dir, certs.ServerCombined)
	}
	if bind == "passthrough" {
		bind = ""
	}
	require_NoError(t, os.WriteFile(h.config, []byte(fmt.Sprintf(`
global
  maxconn 500
  hard-stop-after 30s
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
  timeout check 2s
frontend nats
  bind %s %s
  bind %s %s
  default_backend nats
backend nats
  server nats %s %s %s
`, h.addr, bind, h.addr6, bind, backend, send, serverOpts)), 0o600))
	h.process = startProcess(t, path, "-W", "-db", "-f", h.config)
	waitForPort(t, h.addr)
	return h
}

// edgeOptions are what an ordinary client needs at an edge.
func edgeOptions(t testing.TB, dir string) []nats.Option {
	return []nats.Option{
		nats.TLSHandshakeFirst(),
		nats.Secure(&tls.Config{RootCAs: caPool(t, dir)}),
	}
}

// The main scenario: TLS ends at the edge, clients inside hear nothing of it.
func TestEdgeHAProxyTLSEndedAtTheEdge(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	globalTLS := fmt.Sprintf("tls { cert_file: %q, key_file: %q }\nallow_non_tls: true\n",
		filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey))
	for _, global := range []string{"", globalTLS} {
		s, _ := runServer(t, global+trustedConf)
		h := runHAProxy(t, dir, listenerAddr(t, s, "edge"), "send-proxy-v2-ssl", "", "")
		// Plain, whatever the main port offers.
		inside := connectNATS(t, "nats://"+s.Addr().String())
		if global == "" {
			require_Equal(t, dialRaw(t, s.Addr().String()).info().tls(), "")
		}
		for _, addr := range []string{h.addr, h.addr6} {
			outside := connectNATS(t, "tls://"+addr, append(edgeOptions(t, dir), nats.Name("outside"))...)
			roundTrip(t, inside, outside)
			ip, err := outside.GetClientIP()
			require_NoError(t, err)
			host, _, _ := net.SplitHostPort(addr)
			require_Equal(t, ip.String(), host)
			for _, ci := range connz(t, s, "") {
				if ci.Name == "outside" {
					require_Equal(t, ci.IP, host)
					require_Equal(t, ci.Listener, "edge")
					require_Equal(t, ci.TLS, "")
				}
			}
			outside.Close()
		}
		s.Shutdown()
	}
}

// What each way of sending the header proves, and that the client's address is
// right with each: v1, v2, v2 with the SSL TLV, with a plain bind, with CRC32C
// and all other TLVs.
func TestEdgeHAProxyHeaders(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	s, _ := runServer(t, trustedConf)
	for _, c := range []struct {
		send, bind, want string
	}{
		{"send-proxy", "", ""},
		{"send-proxy-v2", "", ""},
		{"send-proxy-v2-ssl", "", "tls_available=true"},
		{"send-proxy-v2-ssl-cn", "", "tls_available=true"},
		{"send-proxy-v2-ssl", "passthrough", ""},
		{"send-proxy-v2-ssl-cn proxy-v2-options crc32c,authority,unique-id,ssl-cipher,cert-sig,cert-key", "", "tls_available=true"},
	} {
		h := runHAProxy(t, dir, listenerAddr(t, s, "edge"), c.send, c.bind, "")
		var (
			conn net.Conn
			err  error
		)
		if c.bind == "" {
			conn, err = tls.Dial("tcp", h.addr, &tls.Config{RootCAs: caPool(t, dir), ServerName: "localhost"})
		} else {
			conn, err = net.Dial("tcp", h.addr)
		}
		require_NoError(t, err)
		r := rawOn(t, conn)
		for which, i := range map[string]info{"first": r.info(), "second": second(r)} {
			if i.tls() != c.want {
				t.Errorf("%s, bind %q: %s INFO says %q, want %q", c.send, c.bind, which, i.tls(), c.want)
			}
			require_Equal(t, i["client_ip"], any("127.0.0.1"))
		}
		conns := connz(t, s, "")
		require_Equal(t, fmt.Sprintf("%s:%d", conns[0].IP, conns[0].Port), conn.LocalAddr().String())
		conn.Close()
		h.stop()
	}
}

// Health checks: LOCAL by check-send-proxy, and connect and close.
func TestEdgeHAProxyHealthChecks(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	for _, send := range []string{"send-proxy-v2-ssl", "send-proxy-v2", "send-proxy"} {
		s, log := runServer(t, trustedConf)
		runHAProxy(t, dir, listenerAddr(t, s, "edge"), send, "", "check check-send-proxy inter 50ms")
		checkFor(t, func() error {
			if n := log.count("DBG", "Client connection created"); n < 5 && log.count("DBG", "Listener") < 5 {
				return fmt.Errorf("%d health checks", n)
			}
			return nil
		})
		if n := log.count("WRN") + log.count("ERR"); n != 0 {
			t.Fatalf("health checks by %s are in the log:\n%s", send, log)
		}
		s.Shutdown()
	}
}

// TLS ended twice, and passed through: header first, then TLS at the server.
func TestEdgeHAProxyTLSAtTheServer(t *testing.T) {
	dir := testCerts(t, certs.Opts{ClientCN: "app"})
	for _, first := range []string{"", "handshake_first: true"} {
		s, _ := runServer(t, fmt.Sprintf(`
			accounts { A { users: [ { user: "CN=app" }, { user: near, password: pw } ] } }
			listeners {
				reencrypted { listen: "127.0.0.1:-1", proxy_protocol { trusted: ["127.0.0.1"] }, %s }
				passed { listen: "127.0.0.1:-1", proxy_protocol { trusted: ["127.0.0.1"] }, %s }
			}`, tlsBlock(dir, "handshake_first: true"), tlsBlock(dir, "verify_and_map: true\n"+first)))
		inside := connectNATS(t, s.ClientURL(), nats.UserInfo("near", "pw"))

		twice := runHAProxy(t, dir, listenerAddr(t, s, "reencrypted"), "send-proxy-v2-ssl", "",
			"ssl verify required ca-file "+filepath.Join(dir, certs.CA)+" verifyhost localhost sni str(localhost)")
		roundTrip(t, inside, connectNATS(t, "tls://"+twice.addr, append(edgeOptions(t, dir), nats.UserInfo("near", "pw"))...))

		through := runHAProxy(t, dir, listenerAddr(t, s, "passed"), "send-proxy-v2", "passthrough", "")
		opts := []nats.Option{nats.Name("through"), nats.Secure(&tls.Config{RootCAs: caPool(t, dir), Certificates: []tls.Certificate{clientCert(t, dir)}})}
		if first != "" {
			opts = append(opts, nats.TLSHandshakeFirst())
		}
		roundTrip(t, inside, connectNATS(t, "tls://"+through.addr, opts...))
		for _, ci := range connz(t, s, "?auth=true") {
			if ci.Name == "through" {
				require_Equal(t, ci.User, "CN=app")
				require_Equal(t, ci.TLS, "1.3")
				require_Equal(t, ci.IP, "127.0.0.1")
			}
		}
		s.Shutdown()
	}
}

// rawOn speaks the protocol by hand on a connection that is open.
func rawOn(t testing.TB, c net.Conn) *rawClient {
	t.Helper()
	t.Cleanup(func() { c.Close() })
	return newRaw(t, c)
}

// 10,000 messages from outside and 10,000 from inside, none lost and none
// doubled, while the server is restarted and the edge reloaded under them.
func TestEdgeHAProxyJetStreamOverRestartAndReload(t *testing.T) {
	const messages = 10_000
	dir := testCerts(t, certs.Opts{})
	port, trusted, monitorPort := freePort(t), freePort(t), freePort(t)
	conf := createConfFile(t, fmt.Sprintf(`
		listen: 127.0.0.1:%d
		http: 127.0.0.1:%d
		jetstream { store_dir: %q }
		listeners { edge { listen: 127.0.0.1:%d, proxy_protocol { trusted: ["127.0.0.1"] } } }
	`, port, monitorPort, t.TempDir(), trusted))
	start := func() *process {
		p := startProcess(t, binary(t, "patched"), "-c", conf)
		waitForHealth(t, p, monitorPort)
		return p
	}
	srv := start()
	edge := runHAProxy(t, dir, fmt.Sprintf("127.0.0.1:%d", trusted), "send-proxy-v2-ssl", "", "check inter 200ms")

	always := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond), nats.Timeout(deadline),
		nats.RetryOnFailedConnect(true), nats.PingInterval(2 * time.Second)}
	connect := func(url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
		nc, err := nats.Connect(url, append(opts, always...)...)
		require_NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require_NoError(t, err)
		return nc, js
	}
	outsideNC, outside := connect("tls://"+edge.addr, edgeOptions(t, dir)...)
	insideNC, inside := connect(fmt.Sprintf("nats://127.0.0.1:%d", port))
	_ = outsideNC

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	_, err := inside.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Duplicates: 2 * time.Minute})
	require_NoError(t, err)

	var wg sync.WaitGroup
	half := make(chan struct{}, 2)
	publish := func(name string, js jetstream.JetStream) {
		defer wg.Done()
		for i := 0; i < messages; i++ {
			id := fmt.Sprintf("%s-%d", name, i)
			for {
				pctx, pcancel := context.WithTimeout(ctx, 2*time.Second)
				_, err := js.Publish(pctx, "s."+name, []byte(id), jetstream.WithMsgID(id))
				pcancel()
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					t.Errorf("publishing %s: %v", id, err)
					return
				}
			}
			if i == messages/3 {
				half <- struct{}{}
			}
		}
	}
	consume := func(name, from string, js jetstream.JetStream) {
		defer wg.Done()
		var (
			acked = make(map[string]bool, messages)
			cons  jetstream.Consumer
			err   error
		)
		for len(acked) < messages {
			if ctx.Err() != nil {
				t.Errorf("%s has %d of %d messages", name, len(acked), messages)
				return
			}
			if cons == nil {
				if cons, err = js.CreateOrUpdateConsumer(ctx, "S", jetstream.ConsumerConfig{Durable: name, FilterSubject: "s." + from,
					AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second}); err != nil {
					continue
				}
			}
			batch, err := cons.Fetch(200, jetstream.FetchMaxWait(time.Second))
			if err != nil {
				continue
			}
			for m := range batch.Messages() {
				actx, acancel := context.WithTimeout(ctx, 2*time.Second)
				err := m.DoubleAck(actx)
				acancel()
				id := string(m.Data())
				// One whose acknowledgement got lost comes again, as it must.
				// One that was acknowledged may not.
				if acked[id] {
					t.Errorf("%s got %s again, after its acknowledgement was confirmed", name, id)
					return
				}
				if err == nil {
					acked[id] = true
				} else if errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
					acked[id] = true
				}
			}
		}
	}
	wg.Add(4)
	go publish("outside", outside)
	go publish("inside", inside)
	go consume("cin", "outside", inside)
	go consume("cout", "inside", outside)
	<-half
	<-half
	edge.signal(syscall.SIGUSR2) // HAProxy's master starts new workers
	srv.stop()
	start()
	wg.Wait()

	st, err := inside.Stream(ctx, "S")
	require_NoError(t, err)
	si, err := st.Info(ctx)
	require_NoError(t, err)
	require_Equal(t, si.State.Msgs, uint64(2*messages))
	if !strings.Contains(edge.output(), "Reloading HAProxy") && !strings.Contains(edge.output(), "Loading success") {
		t.Fatalf("the edge was not reloaded:\n%s", edge.output())
	}
	require_NoError(t, insideNC.Flush())
}
