package test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

const clientAddr = "203.0.113.7:51234"

// Connect and disconnect advisories name the client, not the proxy.
func TestListenerClientAddressInAdvisories(t *testing.T) {
	s, _ := runServer(t, `accounts {
		$SYS { users: [ { user: sys, password: pw } ] }
		A { users: [ { user: app, password: pw } ] } }`+trustedConf)
	sys := connectNATS(t, s.ClientURL(), nats.UserInfo("sys", "pw"))
	events, err := sys.SubscribeSync("$SYS.ACCOUNT.A.*")
	require_NoError(t, err)
	require_NoError(t, sys.Flush())
	connectThrough(t, s, "edge", header(t, 2, clientAddr), nats.UserInfo("app", "pw")).Close()
	for _, want := range []string{"CONNECT", "DISCONNECT"} {
		for {
			m, err := events.NextMsg(deadline)
			require_NoError(t, err)
			if !strings.HasSuffix(m.Subject, "."+want) {
				continue
			}
			var e struct {
				Client struct {
					Host string `json:"host"`
				} `json:"client"`
			}
			require_NoError(t, json.Unmarshal(m.Data, &e))
			require_Equal(t, e.Client.Host, "203.0.113.7")
			break
		}
	}
}

// The log names the client as it does any other.
func TestListenerClientAddressInLog(t *testing.T) {
	s, log := runServer(t, trustedConf)
	connectThrough(t, s, "edge", header(t, 2, clientAddr)).Close()
	checkFor(t, func() error {
		if log.count("DBG", clientAddr+" - cid:", "Client connection closed") != 1 {
			return fmt.Errorf("no line for the client:\n%s", log)
		}
		return nil
	})
}

// operatorMode returns the configuration of a server in operator mode with one
// account, and what makes credentials for a user of it.
func operatorMode(t testing.TB) (conf string, creds func(limit func(*jwt.UserClaims)) nats.Option) {
	t.Helper()
	okp, _ := nkeys.CreateOperator()
	akp, _ := nkeys.CreateAccount()
	opub, _ := okp.PublicKey()
	apub, _ := akp.PublicKey()
	ojwt, err := jwt.NewOperatorClaims(opub).Encode(okp)
	require_NoError(t, err)
	ajwt, err := jwt.NewAccountClaims(apub).Encode(okp)
	require_NoError(t, err)
	conf = fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s }\n", ojwt, apub, ajwt)
	return conf, func(limit func(*jwt.UserClaims)) nats.Option {
		ukp, _ := nkeys.CreateUser()
		upub, _ := ukp.PublicKey()
		uc := jwt.NewUserClaims(upub)
		limit(uc)
		ujwt, err := uc.Encode(akp)
		require_NoError(t, err)
		return nats.UserJWT(func() (string, error) { return ujwt, nil }, ukp.Sign)
	}
}

// The src limit of a user JWT looks at the client's address and at no other: the
// proxy's gets nobody in, and a loopback address in a header is no local client.
func TestListenerClientAddressForJWTSource(t *testing.T) {
	conf, creds := operatorMode(t)
	s, _ := runServer(t, conf+trustedConf)
	from := func(cidr string) nats.Option {
		return creds(func(c *jwt.UserClaims) { c.Limits.Src = jwt.CIDRList{cidr} })
	}
	connectThrough(t, s, "edge", header(t, 2, clientAddr), from("203.0.113.0/24"))
	connectThrough(t, s, "edge", header(t, 1, "[2001:db8::7]:1"), from("2001:db8::/32"))
	for _, cidr := range []string{"127.0.0.0/8", "192.0.2.0/24"} {
		nc, err := nats.Connect("nats://127.0.0.1:1", from(cidr), nats.NoReconnect(),
			nats.SetCustomDialer(proxyDialer{listenerAddr(t, s, "edge"), header(t, 2, clientAddr)}))
		if err == nil {
			nc.Close()
			t.Fatalf("a client from %s got in with src %s", clientAddr, cidr)
		}
	}
}

// nkeys and users work by a listener as on the main port.
func TestListenerNkeyUser(t *testing.T) {
	ukp, _ := nkeys.CreateUser()
	pub, _ := ukp.PublicKey()
	s, _ := runServer(t, fmt.Sprintf("accounts { A { users: [ { nkey: %s }, { user: near, password: pw } ] } }\n", pub)+trustedConf)
	nc := connectThrough(t, s, "edge", header(t, 2, clientAddr), nats.Nkey(pub, ukp.Sign))
	roundTrip(t, nc, connectNATS(t, s.ClientURL(), nats.UserInfo("near", "pw")))
}

// Auth callout is asked about the client at its own address, and about no TLS:
// the server did none.
func TestListenerClientAddressForAuthCallout(t *testing.T) {
	akp, _ := nkeys.CreateAccount()
	issuer, _ := akp.PublicKey()
	s, _ := runServer(t, fmt.Sprintf(`
		accounts { AUTH { users: [ { user: auth, password: pw } ] }, APP {} }
		authorization { timeout: 5, auth_callout { issuer: %s, account: AUTH, auth_users: [ auth ] } }`, issuer)+trustedConf)
	service := connectNATS(t, s.ClientURL(), nats.UserInfo("auth", "pw"))
	asked := make(chan *jwt.AuthorizationRequestClaims, 1)
	_, err := service.Subscribe("$SYS.REQ.USER.AUTH", func(m *nats.Msg) {
		req, err := jwt.DecodeAuthorizationRequestClaims(string(m.Data))
		if err != nil {
			t.Error(err)
			return
		}
		asked <- req
		uc := jwt.NewUserClaims(req.UserNkey)
		uc.Audience = "APP"
		ujwt, _ := uc.Encode(akp)
		res := jwt.NewAuthorizationResponseClaims(req.UserNkey)
		res.Audience, res.Jwt = req.Server.ID, ujwt
		data, _ := res.Encode(akp)
		_ = m.Respond([]byte(data))
	})
	require_NoError(t, err)
	require_NoError(t, service.Flush())
	connectThrough(t, s, "edge", header(t, 2, clientAddr, sslTLV(7, 0)), nats.UserInfo("someone", "pw"))
	select {
	case req := <-asked:
		require_Equal(t, req.ClientInformation.Host, "203.0.113.7")
		if req.TLS != nil {
			t.Fatalf("the callout was told of TLS that the server did not do: %+v", req.TLS)
		}
	case <-time.After(deadline):
		t.Fatal("the callout was not asked")
	}
}

// A client costs what it costs on the main port: two goroutines, and nothing per
// message.
func TestListenerAddsNoGoroutinePerClient(t *testing.T) {
	s, _ := runServer(t, trustedConf)
	per := func(connect func() *rawClient) int {
		t.Helper()
		const n = 20
		before := goroutinesOf("server.(*client)")
		var cs []*rawClient
		for range n {
			c := connect()
			c.info()
			c.connect("")
			cs = append(cs, c)
		}
		checkFor(t, func() error {
			if got := goroutinesOf("server.(*client)") - before; got < n {
				return fmt.Errorf("%d goroutines", got)
			}
			return nil
		})
		got := goroutinesOf("") // all there are, the accept path's too
		for _, c := range cs {
			c.Close()
		}
		checkFor(t, func() error {
			if s.NumClients() != 0 {
				return fmt.Errorf("%d clients are left", s.NumClients())
			}
			return nil
		})
		checkFor(t, func() error {
			if goroutinesOf("server.(*client)") > before {
				return fmt.Errorf("goroutines of clients are left")
			}
			return nil
		})
		return (got - goroutinesOf("") + n/2) / n
	}
	mainPort := per(func() *rawClient { return dialRaw(t, s.Addr().String()) })
	trusted := per(func() *rawClient { return dialRaw(t, listenerAddr(t, s, "edge"), header(t, 2, clientAddr)) })
	require_Equal(t, trusted, mainPort)
	require_Equal(t, trusted, 2)
}

// Counted for the whole process while 20,000 messages go through a listener and
// through the main port.
func TestListenerAllocatesNothingPerMessage(t *testing.T) {
	const messages = 20_000
	s, _ := runServer(t, trustedConf)
	per := func(c *rawClient) float64 {
		t.Helper()
		c.info()
		c.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPING\r\n")
		for c.line() != "PONG" {
		}
		batch := []byte(strings.Repeat("PUB a 2\r\nhi\r\n", 100))
		buf := make([]byte, 64<<10)
		want := messages * len("MSG a 1 2\r\nhi\r\n")
		allocs := mallocs()
		go func() {
			for range messages / 100 {
				if _, err := c.Write(batch); err != nil {
					return
				}
			}
		}()
		require_NoError(t, c.SetReadDeadline(time.Now().Add(deadline)))
		for got := 0; got < want; {
			n, err := c.r.Read(buf)
			require_NoError(t, err)
			got += n
		}
		return float64(mallocs()-allocs) / messages
	}
	mainPort := per(dialRaw(t, s.Addr().String()))
	trusted := per(dialRaw(t, listenerAddr(t, s, "edge"), header(t, 2, clientAddr)))
	t.Logf("allocations per message: main port %.3f, trusted listener %.3f", mainPort, trusted)
	// One more for each would be a whole one; the rest is the race detector's, which
	// makes pools forget, and this test's own.
	if trusted > mainPort+0.5 {
		t.Fatalf("%.3f allocations per message, on the main port %.3f", trusted, mainPort)
	}
}

// The server gathers what it writes into one system call. It can only do that
// while nothing stands between it and the socket: writes are counted on both
// ports with the same load.
func TestListenerKeepsWritev(t *testing.T) {
	port, trusted, monitorPort := freePort(t), freePort(t), freePort(t)
	p := startProcess(t, binary(t, "patched"), "-c", createConfFile(t, fmt.Sprintf(`
		listen: 127.0.0.1:%d
		http: 127.0.0.1:%d
		max_pending: 256MB
		listeners { edge { listen: 127.0.0.1:%d, proxy_protocol { trusted: ["127.0.0.1"] } } }`, port, monitorPort, trusted)))
	waitForHealth(t, p, monitorPort)
	const total = 128 << 20
	writes := func(c *rawClient) int {
		t.Helper()
		c.info()
		c.send("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPING\r\n")
		for c.line() != "PONG" {
		}
		pub := dialRaw(t, fmt.Sprintf("127.0.0.1:%d", port))
		pub.info()
		pub.send("CONNECT {\"verbose\":false}\r\n")
		size := 512 << 10
		msg := fmt.Sprintf("PUB a %d\r\n%s\r\n", size, strings.Repeat("x", size))
		before := writeCalls(t, p)
		go func() {
			for range total / size {
				if _, err := pub.Write([]byte(msg)); err != nil {
					return
				}
			}
		}()
		buf := make([]byte, 256<<10)
		require_NoError(t, c.SetReadDeadline(time.Now().Add(deadline)))
		for got := 0; got < total; {
			n, err := c.r.Read(buf)
			require_NoError(t, err)
			got += n
		}
		return writeCalls(t, p) - before
	}
	main := writes(dialRaw(t, fmt.Sprintf("127.0.0.1:%d", port)))
	edge := writes(dialRaw(t, fmt.Sprintf("127.0.0.1:%d", trusted), header(t, 2, clientAddr)))
	// Upstream's buffers are 64 KiB at most, each would be a write of its own.
	t.Logf("write calls for %d MiB: main port %d, trusted listener %d, one per buffer would be %d", total>>20, main, edge, total/(64<<10))
	if edge > 2*main+100 || edge >= total/(64<<10) {
		t.Fatalf("%d write calls by the trusted listener, %d by the main port", edge, main)
	}
}

// writeCalls returns how many write system calls a process has made.
func writeCalls(t testing.TB, p *process) (n int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.cmd.Process.Pid))
	require_NoError(t, err)
	for _, l := range strings.Split(string(b), "\n") {
		if _, err := fmt.Sscanf(l, "syscw: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no syscw")
	return 0
}
