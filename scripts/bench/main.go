// Command bench measures what a trusted-proxy listener costs: against the main
// port of the same server, and against upstream's own binary with its
// proxy_protocol, in one run and turn about, because machines differ and are
// noisy. It prints medians and ratios; a figure on its own means nothing.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
)

var (
	patched  = flag.String("patched", "build/bin/nats-server", "our server")
	pristine = flag.String("pristine", "", "upstream's server")
	rounds   = flag.Int("rounds", 9, "rounds, whose median is taken")
	mib      = flag.Int("mib", 64, "MiB of payload in a round of throughput")
	connects = flag.Int("connects", 2000, "connections in a round of connecting")
)

// port is one way in.
type port struct {
	name   string
	addr   string
	header []byte
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatalf("bench: %v", err)
	}
}

func run() error {
	header, err := proxyproto.HeaderProxyFromAddrs(2,
		&net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 51234}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4443}).Format()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	ours, trusted, theirs, theirProxy := freeAddr(), freeAddr(), freeAddr(), freeAddr()
	for _, s := range []struct{ bin, name, addr, conf string }{
		{*patched, "ours", ours, fmt.Sprintf("listeners { edge { listen: %q, proxy_protocol { trusted: [\"127.0.0.1\"] } } }", trusted)},
		{*pristine, "upstream", theirs, ""},
		{*pristine, "upstream-proxy", theirProxy, "proxy_protocol: true"},
	} {
		stop, err := start(dir, s.bin, s.name, s.addr, s.conf)
		if err != nil {
			return err
		}
		defer stop()
	}
	ports := []port{
		{"upstream, main port", theirs, nil},
		{"ours, main port", ours, nil},
		{"ours, trusted listener", trusted, header},
		{"upstream, proxy_protocol", theirProxy, header},
	}

	for _, m := range []struct {
		name, unit string
		measure    func(port) (float64, error)
	}{
		{"publish and receive, 128 B", "msg/s", func(p port) (float64, error) { return throughput(p, 128) }},
		{"publish and receive, 16 KiB", "msg/s", func(p port) (float64, error) { return throughput(p, 16<<10) }},
		{"connect, INFO, PONG, close", "conn/s", connectRate},
	} {
		got := make([][]float64, len(ports))
		for range *rounds {
			for i, p := range ports {
				v, err := m.measure(p)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", m.name, p.name, err)
				}
				got[i] = append(got[i], v)
			}
		}
		fmt.Printf("%s (median of %d, ratio to upstream's main port)\n", m.name, *rounds)
		base := median(got[0])
		for i, p := range ports {
			fmt.Printf("  %-26s %12.0f %-7s %5.2f\n", p.name, median(got[i]), m.unit, median(got[i])/base)
		}
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts a server and waits until it takes connections.
func start(dir, bin, name, addr, conf string) (stop func(), err error) {
	path := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(path, []byte(fmt.Sprintf("listen: %q\nmax_pending: 256MB\n%s\n", addr, conf)), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "-c", path, "-l", filepath.Join(dir, name+".log"))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return stop, nil
		}
	}
	stop()
	return nil, fmt.Errorf("%s does not start", bin)
}

// dial connects and returns after the first PONG.
func dial(p port, send string) (net.Conn, *bufio.Reader, error) {
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(append(slices.Clone(p.header), "CONNECT {\"verbose\":false}\r\n"+send+"PING\r\n"...)); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(c, 256<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, nil, err
		}
		if line == "PONG\r\n" {
			return c, r, nil
		}
	}
}

// throughput sends messages from one client to another by the same port.
func throughput(p port, size int) (float64, error) {
	sub, r, err := dial(p, "SUB a 1\r\n")
	if err != nil {
		return 0, err
	}
	defer sub.Close()
	pub, _, err := dial(p, "")
	if err != nil {
		return 0, err
	}
	defer pub.Close()
	count := *mib << 20 / size
	msg := fmt.Sprintf("PUB a %d\r\n%s\r\n", size, strings.Repeat("x", size))
	batch := max(1, (64<<10)/len(msg))
	count = count / batch * batch
	data := []byte(strings.Repeat(msg, batch))
	want := int64(count) * int64(len(fmt.Sprintf("MSG a 1 %d\r\n", size))+size+2)
	failed := make(chan error, 1)
	begin := time.Now()
	go func() {
		for range count / batch {
			if _, err := pub.Write(data); err != nil {
				failed <- err
				sub.Close()
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, r, want); err != nil {
		select {
		case werr := <-failed:
			err = errors.Join(err, werr)
		default:
		}
		return 0, err
	}
	return float64(count) / time.Since(begin).Seconds(), nil
}

func connectRate(p port) (float64, error) {
	begin := time.Now()
	for range *connects {
		c, _, err := dial(p, "")
		if err != nil {
			return 0, err
		}
		c.Close()
	}
	return float64(*connects) / time.Since(begin).Seconds(), nil
}
