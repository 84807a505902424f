// Command natsdemo is a tiny NATS client for make run and the checks under
// conf/: enough to see messages go in and out of a server. Its flags are those
// of the nats CLI, so that either can be pasted.
//
//	natsdemo -s nats://127.0.0.1:4222 sub 'demo.>'
//	natsdemo -s tls://localhost:4443 --tlsfirst --tlsca ca.pem pub demo.hello hi
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

const usage = `natsdemo [flags] verb ...

  pub SUBJECT TEXT     publish a message
  sub SUBJECT          print messages until Ctrl-C, or --count of them
  req SUBJECT TEXT     send a request, print the reply
  reply SUBJECT TEXT   answer requests until Ctrl-C, or --count of them
  rtt                  connect, print how long a round trip takes
  info                 print the first line that the server sends
  connz URL NAME       print what the monitoring URL says of the connection NAME
  freeports N          print N loopback ports that nobody listens on

flags:
`

type opts struct {
	server   string
	tlsFirst bool
	tlsCA    string
	tlsCert  string
	tlsKey   string
	from     string
	name     string
	count    int
	timeout  time.Duration
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "natsdemo:", err)
		switch {
		case errors.Is(err, nats.ErrSecureConnRequired):
			fmt.Fprintln(os.Stderr, "natsdemo: this port wants TLS: use tls:// and --tlsca")
		case errors.Is(err, nats.ErrSecureConnWanted):
			fmt.Fprintln(os.Stderr, "natsdemo: the server knows of no TLS on this connection: a plain port, or an edge whose header does not prove it")
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o opts
	fs := flag.NewFlagSet("natsdemo", flag.ExitOnError)
	fs.StringVar(&o.server, "s", nats.DefaultURL, "")
	fs.StringVar(&o.server, "server", nats.DefaultURL, "server: nats://host:port or tls://host:port (also -s)")
	fs.BoolVar(&o.tlsFirst, "tlsfirst", false, "TLS handshake before the server's first line, as an edge that ends TLS needs it")
	fs.StringVar(&o.tlsCA, "tlsca", "", "CA of the certificate at the other end (PEM)")
	fs.StringVar(&o.tlsCert, "tlscert", "", "client certificate (PEM)")
	fs.StringVar(&o.tlsKey, "tlskey", "", "its private key (PEM)")
	fs.StringVar(&o.from, "from", "", "local address to connect from, such as 127.0.0.7")
	fs.StringVar(&o.name, "name", "natsdemo", "name of the connection")
	fs.IntVar(&o.count, "count", 0, "end after that many messages; 0: never")
	fs.DurationVar(&o.timeout, "timeout", 5*time.Second, "time to connect and to wait for one reply")
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), usage)
		fs.PrintDefaults()
	}
	// Flags may stand before, between and after the words.
	var words []string
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return err
		}
		if args = fs.Args(); len(args) > 0 {
			words, args = append(words, args[0]), args[1:]
		}
	}
	if len(words) == 0 {
		fs.Usage()
		os.Exit(2)
	}
	verb, rest := words[0], words[1:]
	verbs := map[string]struct {
		args int
		do   func() error
	}{
		"pub":       {2, func() error { return o.pub(rest[0], rest[1]) }},
		"sub":       {1, func() error { return o.sub(ctx, rest[0], nil) }},
		"req":       {2, func() error { return o.req(rest[0], rest[1]) }},
		"reply":     {2, func() error { return o.sub(ctx, rest[0], &rest[1]) }},
		"rtt":       {0, func() error { return o.rtt() }},
		"info":      {0, func() error { return o.info() }},
		"connz":     {2, func() error { return o.connz(rest[0], rest[1]) }},
		"freeports": {1, func() error { return freePorts(rest[0]) }},
	}
	v, ok := verbs[verb]
	if !ok {
		return fmt.Errorf("no verb %q: natsdemo --help lists them", verb)
	}
	if len(rest) != v.args {
		return fmt.Errorf("%s takes %d argument(s), not %d: natsdemo --help", verb, v.args, len(rest))
	}
	return v.do()
}

func (o *opts) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: o.timeout}
	if o.from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(o.from)}
	}
	return d
}

func (o *opts) connect(more ...nats.Option) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(o.name),
		nats.Timeout(o.timeout),
		nats.SetCustomDialer(o.dialer()),
	}
	if o.tlsCA != "" {
		options = append(options, nats.RootCAs(o.tlsCA))
	}
	if o.tlsCert != "" || o.tlsKey != "" {
		options = append(options, nats.ClientCert(o.tlsCert, o.tlsKey))
	}
	if o.tlsFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	return nats.Connect(o.server, append(options, more...)...)
}

func (o *opts) pub(subject, text string) error {
	nc, err := o.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := nc.Publish(subject, []byte(text)); err != nil {
		return err
	}
	if err := nc.FlushTimeout(o.timeout); err != nil {
		return err
	}
	fmt.Printf("published to %s\n", subject)
	return nil
}

func (o *opts) req(subject, text string) error {
	nc, err := o.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	m, err := nc.Request(subject, []byte(text), o.timeout)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", m.Data)
	return nil
}

// sub prints messages, and answers them when there is an answer. It reconnects
// as nats.go does, so that a server can be restarted under it.
func (o *opts) sub(ctx context.Context, subject string, answer *string) error {
	nc, err := o.connect(
		nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				fmt.Fprintf(os.Stderr, "disconnected: %v\n", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { fmt.Fprintln(os.Stderr, "connected again") }),
	)
	if err != nil {
		return err
	}
	defer nc.Close()
	s, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	if err := nc.FlushTimeout(o.timeout); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "subscribed to %s from %s\n", subject, nc.LocalAddr())
	for n := 0; o.count == 0 || n < o.count; n++ {
		m, err := s.NextMsgWithContext(ctx)
		if ctx.Err() != nil {
			return nil // Ctrl-C
		}
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", m.Subject, m.Data)
		if answer != nil {
			if err := m.Respond([]byte(*answer)); err != nil {
				return err
			}
		}
	}
	return nc.FlushTimeout(o.timeout)
}

func (o *opts) rtt() error {
	nc, err := o.connect(nats.NoReconnect())
	if err != nil {
		return err
	}
	defer nc.Close()
	d, err := nc.RTT()
	if err != nil {
		return err
	}
	fmt.Println(d)
	return nil
}

// info looks at the server's first line as it is on the wire, with no client
// library between.
func (o *opts) info() error {
	u, err := url.Parse(o.server)
	if err != nil {
		return err
	}
	c, err := o.dialer().Dial("tcp", u.Host)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(o.timeout)); err != nil {
		return err
	}
	if o.tlsFirst {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
		if o.tlsCA != "" {
			data, err := os.ReadFile(o.tlsCA)
			if err != nil {
				return err
			}
			cfg.RootCAs = x509.NewCertPool()
			cfg.RootCAs.AppendCertsFromPEM(data)
		}
		if o.tlsCert != "" {
			cert, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
			if err != nil {
				return err
			}
			cfg.Certificates = []tls.Certificate{cert}
		}
		c = tls.Client(c, cfg)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	fmt.Println(strings.TrimSpace(line))
	return nil
}

// connz prints the fields of one connection that matter behind an edge, each
// on a line, those that are not there left out.
func (o *opts) connz(monitor, name string) error {
	client := &http.Client{Timeout: o.timeout}
	resp, err := client.Get(strings.TrimSuffix(monitor, "/") + "/connz?auth=1")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var z struct {
		Connections []map[string]any `json:"connections"`
	}
	if err := json.Unmarshal(body, &z); err != nil {
		return err
	}
	for _, c := range z.Connections {
		if c["name"] != name {
			continue
		}
		fmt.Printf("client %v:%v\n", c["ip"], c["port"])
		for _, field := range []string{"listener", "proxied_by", "authorized_user", "tls_version"} {
			if v, ok := c[field]; ok {
				fmt.Printf("%s %v\n", field, v)
			}
		}
		return nil
	}
	return fmt.Errorf("no connection named %q in %s", name, monitor)
}

// freePorts chooses below the range that outgoing connections use, so that none
// of them takes a port before its server does.
func freePorts(arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 || n > 100 {
		return fmt.Errorf("%q is no number from 1 to 100", arg)
	}
	const low, high, tries = 20000, 32000, 10000
	chosen := map[int]bool{}
	for range tries {
		port := low + rand.IntN(high-low)
		if chosen[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		chosen[port] = true
		fmt.Println(port)
		if len(chosen) == n {
			return nil
		}
	}
	return errors.New("too few free ports")
}
