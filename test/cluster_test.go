package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"nats-trusted-proxy/scripts/devcert/certs"
)

// infos collects every INFO that a client gets.
type infos struct {
	mu  sync.Mutex
	all []info
}

func (is *infos) collect(c *rawClient) {
	go func() {
		for {
			_ = c.SetReadDeadline(time.Time{})
			l, err := c.r.ReadString('\n')
			if err != nil {
				return
			}
			if strings.HasPrefix(l, "INFO ") {
				i, err := parseInfo(l)
				if err != nil {
					panic(err)
				}
				is.mu.Lock()
				is.all = append(is.all, i)
				is.mu.Unlock()
			} else if strings.HasPrefix(l, "PING") {
				_, _ = c.Write([]byte("PONG\r\n"))
			}
		}
	}()
}

func (is *infos) snapshot() []info {
	is.mu.Lock()
	defer is.mu.Unlock()
	return append([]info(nil), is.all...)
}

// A node that joins and leaves is announced to clients inside. On the trusted
// port that leaks neither an address of the cluster nor a TLS flag, with and
// without TLS on the main port.
func TestAdvertiseClusterChangesLeakNothing(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	for _, global := range []string{"", fmt.Sprintf("tls { cert_file: %q, key_file: %q }\nallow_non_tls: true\n", filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey))} {
		node := func(name string, routes ...*server.Server) *server.Server {
			var urls []string
			for _, r := range routes {
				urls = append(urls, fmt.Sprintf("%q", "nats://"+r.ClusterAddr().String()))
			}
			s, _ := runServer(t, global+fmt.Sprintf(`
				server_name: %s
				cluster { name: c, listen: "127.0.0.1:-1", routes: [%s] }`, name, strings.Join(urls, ", "))+trustedConf)
			return s
		}
		a := node("A")
		b := node("B", a)
		routes := func(s *server.Server, n int) {
			t.Helper()
			checkFor(t, func() error {
				if got := s.NumRemotes(); got != n {
					return fmt.Errorf("%d remotes, want %d", got, n)
				}
				return nil
			})
		}
		routes(a, 1)
		routes(b, 1)

		outside := dialRaw(t, listenerAddr(t, a, "edge"), header(t, 2, "203.0.113.7:1"))
		proved := dialRaw(t, listenerAddr(t, a, "edge"), header(t, 2, "203.0.113.7:1", sslTLV(1, 0)))
		inside := dialRaw(t, a.Addr().String())
		var seenOutside, seenProved, seenInside infos
		for _, c := range []struct {
			c    *rawClient
			seen *infos
		}{{outside, &seenOutside}, {proved, &seenProved}, {inside, &seenInside}} {
			first := c.c.info()
			before, after := c.c.connect("")
			require_Equal(t, len(before), 0)
			c.seen.all = append(c.seen.all, first, after)
			c.seen.collect(c.c)
		}

		third := node("C", a)
		routes(third, 2)
		addr := third.Addr().String()
		sees := func(want bool) {
			t.Helper()
			checkFor(t, func() error {
				all := seenInside.snapshot()
				if has := strings.Contains(all[len(all)-1].connectURLs(), addr); has != want {
					return fmt.Errorf("clients inside were told of %s: %v", addr, has)
				}
				return nil
			})
		}
		sees(true)
		third.Shutdown()
		sees(false)

		// As many INFOs as inside, so that what must not be in them had its
		// chance to be.
		n := len(seenInside.snapshot())
		for _, c := range []struct {
			name string
			seen *infos
			tls  string
		}{{"no proof", &seenOutside, ""}, {"proof", &seenProved, "tls_available=true"}} {
			checkFor(t, func() error {
				if got := len(c.seen.snapshot()); got < n {
					return fmt.Errorf("%d of %d INFOs", got, n)
				}
				return nil
			})
			for k, i := range c.seen.snapshot() {
				require_Equal(t, i.connectURLs(), "")
				if i.tls() != c.tls {
					t.Fatalf("%s: INFO %d says %q, want %q", c.name, k, i.tls(), c.tls)
				}
			}
		}
		a.Shutdown()
		b.Shutdown()
	}
}
