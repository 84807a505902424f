package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// edgeOpts says what the edge does. main.go's flags explain each.
type edgeOpts struct {
	Listen           string
	Upstream         string
	CertFile         string
	KeyFile          string
	ClientCAFile     string
	ALPN             string
	UpstreamCAFile   string
	UpstreamName     string
	Passthrough      bool
	HandshakeTimeout time.Duration // 0 means 10 s
	Logf             func(format string, args ...any)
}

func (o *edgeOpts) validate() error {
	if o.Passthrough {
		for name, value := range map[string]string{
			"-cert": o.CertFile, "-key": o.KeyFile, "-client-ca": o.ClientCAFile, "-alpn": o.ALPN,
			"-upstream-tls-ca": o.UpstreamCAFile, "-upstream-name": o.UpstreamName,
		} {
			if value != "" {
				return fmt.Errorf("%s has no meaning with -passthrough: no TLS ends here", name)
			}
		}
		return nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return errors.New("-cert and -key are required (go run ./scripts/devcert makes a pair), or -passthrough")
	}
	if o.UpstreamName != "" && o.UpstreamCAFile == "" {
		return errors.New("-upstream-name has no meaning without -upstream-tls-ca")
	}
	return nil
}

func (o *edgeOpts) mode() string {
	switch {
	case o.Passthrough:
		return "TLS passed through"
	case o.UpstreamCAFile != "":
		return "TLS ended here and made again"
	}
	return "TLS ended here"
}

// edge is a running edge. Its connections are in a set so that Drain can close
// those that do not end by themselves.
type edge struct {
	opts     edgeOpts
	listener net.Listener
	configs  atomic.Pointer[tlsConfigs] // nil when passing through
	handlers sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // of clients; nil once closed for good
	ctx   context.Context       // ends with the connections, for dials under way
	stop  context.CancelFunc
}

// tlsConfigs are what Reload replaces, together.
type tlsConfigs struct {
	client   *tls.Config
	upstream *tls.Config // nil when the server gets plain bytes
}

func startEdge(o edgeOpts) (*edge, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 10 * time.Second
	}
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	e := &edge{opts: o, conns: make(map[net.Conn]struct{})}
	e.ctx, e.stop = context.WithCancel(context.Background())
	if err := e.Reload(); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	e.listener = l
	e.handlers.Go(e.accept)
	return e, nil
}

// Addr is where the edge listens.
func (e *edge) Addr() net.Addr { return e.listener.Addr() }

// Reload reads the certificates again. When it fails nothing changes.
func (e *edge) Reload() error {
	if e.opts.Passthrough {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(e.opts.CertFile, e.opts.KeyFile)
	if err != nil {
		return err
	}
	c := &tlsConfigs{client: &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{cert},
	}}
	if e.opts.ALPN != "" {
		c.client.NextProtos = strings.Split(e.opts.ALPN, ",")
	}
	if e.opts.ClientCAFile != "" {
		if c.client.ClientCAs, err = readPool(e.opts.ClientCAFile); err != nil {
			return err
		}
		c.client.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if e.opts.UpstreamCAFile != "" {
		c.upstream = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.opts.UpstreamName}
		if c.upstream.RootCAs, err = readPool(e.opts.UpstreamCAFile); err != nil {
			return err
		}
		if c.upstream.ServerName == "" {
			host, _, err := net.SplitHostPort(e.opts.Upstream)
			if err != nil || strings.HasPrefix(e.opts.Upstream, "unix:") {
				return fmt.Errorf("no -upstream-name, and -upstream %s has none", e.opts.Upstream)
			}
			c.upstream.ServerName = host
		}
	}
	e.configs.Store(c)
	return nil
}

func readPool(path string) (*x509.CertPool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no certificate in it", path)
	}
	return pool, nil
}

// Drain stops accepting, waits for the connections to end, closes those that
// are left after the bound, and says how many those were.
func (e *edge) Drain(bound time.Duration) int {
	e.listener.Close()
	done := make(chan struct{})
	go func() {
		e.handlers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(bound):
	}
	e.stop()
	e.mu.Lock()
	left := len(e.conns)
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	<-done
	return left
}

func (e *edge) accept() {
	for {
		c, err := e.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			e.opts.Logf("accept: %v", err)
			time.Sleep(50 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		e.mu.Lock()
		closed := e.conns == nil
		if !closed {
			e.conns[c] = struct{}{}
			e.handlers.Go(func() { e.handle(c) })
		}
		e.mu.Unlock()
		if closed {
			c.Close()
			return
		}
	}
}

// halfConn is what every connection here can do: end one direction.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

func (e *edge) handle(raw net.Conn) {
	defer func() {
		raw.Close()
		e.mu.Lock()
		delete(e.conns, raw)
		e.mu.Unlock()
	}()
	client, upstream, err := e.connect(raw)
	if err != nil {
		e.opts.Logf("%v: %v", raw.RemoteAddr(), err)
		return
	}
	// Whichever end Drain or an error closes, the copies below end with it.
	defer upstream.Close()
	defer context.AfterFunc(e.ctx, func() { upstream.Close() })()

	var copies sync.WaitGroup
	copies.Go(func() { pipe(upstream, client) })
	copies.Go(func() { pipe(client, upstream) })
	copies.Wait()
}

// connect does all that comes before the first byte of the client: its
// handshake, the dial, the header, and the handshake with the server.
func (e *edge) connect(raw net.Conn) (client, upstream halfConn, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, e.opts.HandshakeTimeout)
	defer cancel()
	// One pair for the whole connection, whatever a reload does meanwhile.
	configs := e.configs.Load()

	client = raw.(*net.TCPConn)
	var state *tls.ConnectionState
	if configs != nil {
		t := tls.Server(raw, configs.client)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, nil, fmt.Errorf("TLS handshake with the client: %w", err)
		}
		s := t.ConnectionState()
		client, state = t, &s
	}
	header, err := formatHeader(raw.RemoteAddr(), raw.LocalAddr(), state)
	if err != nil {
		return nil, nil, err
	}

	network, address := "tcp", e.opts.Upstream
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(header); err != nil {
		c.Close()
		return nil, nil, err
	}
	upstream = c.(halfConn)
	if configs != nil && configs.upstream != nil {
		t := tls.Client(c, configs.upstream)
		if err := t.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, nil, fmt.Errorf("TLS handshake with the server: %w", err)
		}
		upstream = t
	}
	return client, upstream, nil
}

// pipe copies until one end is done. An orderly end goes on as one; after an
// error both directions are over.
func pipe(to, from halfConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close()
		from.Close()
		return
	}
	if err := to.CloseWrite(); err != nil {
		to.Close()
	}
}
