// Package accept takes connections in for a listener and hands over those that
// it lets through, as connections that are the client's.
//
// One connection's life:
//
//   - It is accepted. On a listener with the PROXY protocol a peer that is not
//     trusted is closed at once, with nothing read and nothing sent
//     (proxy-protocol.txt section 2); it never gets a goroutine.
//   - It takes a place in the budget of handshakes, or is closed.
//   - In a goroutine of its own the whole header is read, under one deadline
//     that dripping does not extend, before anything is sent. A peer that does
//     not deliver one is closed.
//   - What is handed over is a connection with the client's address and, on its
//     read and write paths, nothing but the socket (see tcpConn). The goroutine
//     that read the header runs Config.Handoff and ends.
//
// The policy is asked for anew for each connection, so that a reload is in force
// for the next one. Close stops accepting and closes what was not handed over;
// it leaves alone what was.
//
// To see what happens to a connection, turn debug logging on: each refusal is a
// line there, while the ordinary log has one per peer, reason and minute.
package accept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/trust"
)

// Reasons for a refusal besides those of package proxyheader.
const (
	ReasonUntrusted     proxyheader.Reason = "untrusted"
	ReasonMaxHandshakes proxyheader.Reason = "max_handshakes"
)

// Policy is what holds for one connection.
type Policy struct {
	// ProxyProtocol is nil where the socket peer is the client.
	ProxyProtocol *ProxyProtocol
	// MaxHandshakes bounds the connections that are not handed over yet, those
	// in Config.Handoff included. Zero means no bound.
	MaxHandshakes int
}

// ProxyProtocol says whose header is believed and what it must be.
type ProxyProtocol struct {
	// Trusted are the peers. On a Unix socket it is not asked.
	Trusted trust.List
	// HeaderTimeout is the one deadline for the whole header. It must be set.
	HeaderTimeout time.Duration
	// Limits are passed to proxyheader.Read.
	Limits proxyheader.Limits
}

// Logger is where refusals are written to. The text of a peer is escaped.
type Logger interface {
	Warnf(format string, v ...any)
	Errorf(format string, v ...any)
	Debugf(format string, v ...any)
}

// Config is what a Listener needs. All fields but Owner are required.
type Config struct {
	// Name is the listener's, for the log.
	Name string
	// Owner is carried along in Info.
	Owner any
	// Policy returns what holds now. It is called for each connection and must
	// be safe for concurrent use.
	Policy func() *Policy
	// Handoff takes the connection over, to close it as well. It may block for
	// a TLS handshake: until it returns the connection counts as a handshake.
	Handoff func(net.Conn)
	// Go runs the function in a goroutine that the server waits for when it
	// shuts down. It returns false, and runs nothing, once that has begun.
	Go func(func()) bool
	// Log takes what is to be logged.
	Log Logger
}

// Listener accepts connections on one socket.
type Listener struct {
	cfg Config
	ln  net.Listener

	handshakes atomic.Int64
	refusals   refusals

	mu      sync.Mutex
	serving bool
	closed  bool
	pending map[net.Conn]struct{} // header not read yet
	stop    chan struct{}         // closed by Close
	done    chan struct{}         // closed when the accept loop has ended, or never will begin
}

// New makes a Listener on an open socket. Serve starts it; Close ends it and
// closes the socket, whether it was started or not.
func New(ln net.Listener, cfg Config) *Listener {
	return &Listener{
		cfg:     cfg,
		ln:      ln,
		pending: make(map[net.Conn]struct{}),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
}

// begin notes that Serve runs, and will close done. It returns false when Close
// was faster.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serving = !l.closed
	return l.serving
}

// Addr returns the address of the socket.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Done is closed when no connection will be accepted any more.
func (l *Listener) Done() <-chan struct{} { return l.done }

// Close stops accepting and closes the connections whose header is not read
// yet. Those that were handed over are the server's and stay. It does not wait.
func (l *Listener) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.stop)
	if !l.serving {
		close(l.done)
	}
	l.ln.Close()
	for c := range l.pending {
		c.Close()
	}
}

// Handshakes returns how many connections are not handed over yet.
func (l *Listener) Handshakes() int { return int(l.handshakes.Load()) }

const (
	// tellTimeout and tellDrain bound what an -ERR may cost.
	tellTimeout = 500 * time.Millisecond
	tellDrain   = 64 << 10

	acceptMinSleep = 10 * time.Millisecond
	acceptMaxSleep = time.Second
)

// Serve accepts connections until Close. It returns when the last one that was
// accepted has a goroutine of its own or is closed.
func (l *Listener) Serve() {
	if !l.begin() {
		return
	}
	defer close(l.done)
	sleep := acceptMinSleep
	for {
		c, err := l.ln.Accept()
		if err != nil {
			if l.isClosed() || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, as a rule: what waits in the backlog is
			// taken when there are some again.
			l.cfg.Log.Errorf("Temporary accept error on listener %q: %v, sleeping %v", l.cfg.Name, err, sleep)
			select {
			case <-time.After(sleep):
			case <-l.stop:
				return
			}
			sleep = min(2*sleep, acceptMaxSleep)
			continue
		}
		sleep = acceptMinSleep
		l.admit(c)
	}
}

// admit judges what can be judged without a byte from the peer and gives the
// connection a goroutine, or closes it.
func (l *Listener) admit(c net.Conn) {
	p := l.cfg.Policy()
	if pp := p.ProxyProtocol; pp != nil && !isUnix(c) && !pp.Trusted.Contains(peerOf(c).Addr()) {
		l.refuse(c, ReasonUntrusted, "not a trusted proxy")
		return
	}
	if n := l.handshakes.Add(1); p.MaxHandshakes > 0 && n > int64(p.MaxHandshakes) {
		l.handshakes.Add(-1)
		l.refuse(c, ReasonMaxHandshakes, fmt.Sprintf("max_handshakes (%d) reached", p.MaxHandshakes))
		return
	}
	if !l.track(c) {
		l.handshakes.Add(-1)
		c.Close()
		return
	}
	if !l.cfg.Go(func() {
		defer l.handshakes.Add(-1)
		l.receive(c, p)
	}) {
		l.untrack(c)
		l.handshakes.Add(-1)
		c.Close()
	}
}

// receive reads the header where there is one to read, and hands over.
func (l *Listener) receive(c net.Conn, p *Policy) {
	info := Info{Owner: l.cfg.Owner, remote: l.remoteOf(c)}
	if pp := p.ProxyProtocol; pp != nil {
		h, err := readHeader(c, pp)
		if err != nil {
			l.untrack(c)
			l.refuseHeader(c, pp, err)
			return
		}
		info.Header = h
		if !h.Local {
			if isUnix(c) {
				info.ProxiedBy = "unix:" + info.remote.String()
			} else {
				info.ProxiedBy = peerOf(c).String()
			}
			info.remote = net.TCPAddrFromAddrPort(h.Source)
		}
	}
	// From here on Close leaves the connection alone. If it was faster, the
	// connection is closed already.
	if !l.untrack(c) {
		c.Close()
		return
	}
	l.cfg.Handoff(wrap(c, info))
}

func readHeader(c net.Conn, pp *ProxyProtocol) (*proxyheader.Header, error) {
	if err := c.SetReadDeadline(time.Now().Add(pp.HeaderTimeout)); err != nil {
		return nil, err
	}
	h, err := proxyheader.Read(c, pp.Limits)
	if err != nil {
		return nil, err
	}
	return h, c.SetReadDeadline(time.Time{})
}

// remoteOf returns the address of the socket peer. The peer of a Unix socket has
// no name as a rule, so the path that it connected to stands for it.
func (l *Listener) remoteOf(c net.Conn) net.Addr {
	if isUnix(c) {
		return l.ln.Addr()
	}
	return c.RemoteAddr()
}

func isUnix(c net.Conn) bool {
	_, ok := c.(*net.UnixConn)
	return ok
}

// track notes a connection that Close has to close. It returns false when Close
// was called already.
func (l *Listener) track(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.pending[c] = struct{}{}
	return true
}

// untrack takes that back. It returns false when Close was faster.
func (l *Listener) untrack(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, c)
	return !l.closed
}

func (l *Listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// refuse closes a connection, counts it and says why.
func (l *Listener) refuse(c net.Conn, reason proxyheader.Reason, detail string) {
	peer := l.remoteOf(c).String()
	c.Close()
	// A health probe connects and goes away; nobody wants to read that.
	if reason != proxyheader.ReasonClosed {
		l.warn(peer, reason, detail)
	}
	l.cfg.Log.Debugf("Listener %q: %s refused: %s (%s)", l.cfg.Name, peer, detail, reason)
}

// warn says that a peer was refused, unless that was said a short while ago.
func (l *Listener) warn(peer string, reason proxyheader.Reason, detail string) {
	host, _, err := net.SplitHostPort(peer)
	if err != nil {
		host = peer
	}
	log, more, who := l.refusals.note(host, string(reason), time.Now())
	switch {
	case !log:
	case more == 0:
		l.cfg.Log.Warnf("Listener %q: connection from %s refused: %s", l.cfg.Name, who, detail)
	default:
		l.cfg.Log.Warnf("Listener %q: connection from %s refused: %s (and %d more times since it was last logged)",
			l.cfg.Name, who, detail, more)
	}
}

// refuseHeader refuses a trusted peer that sent no good header. A NATS client
// that came to the wrong port is told so in its own protocol: it shows the text
// to its user, who can do something about it.
func (l *Listener) refuseHeader(c net.Conn, pp *ProxyProtocol, err error) {
	if l.isClosed() {
		c.Close()
		return
	}
	var he *proxyheader.Error
	if !errors.As(err, &he) {
		l.refuse(c, "error", err.Error())
		return
	}
	detail := he.Error()
	switch he.Reason {
	case proxyheader.ReasonSilent:
		detail = fmt.Sprintf("no PROXY protocol header within %v, nothing was sent at all", pp.HeaderTimeout)
		l.tell(c)
	case proxyheader.ReasonNATSClient:
		l.tell(c)
	}
	l.refuse(c, he.Reason, detail)
}

// tell sends the -ERR to a peer that may be a NATS client.
func (l *Listener) tell(c net.Conn) {
	if c.SetDeadline(time.Now().Add(tellTimeout)) != nil {
		return
	}
	fmt.Fprintf(c, "-ERR 'Listener %s is for edge proxies and needs a PROXY protocol header first, connect to another port'\r\n", l.cfg.Name)
	// A socket that is closed with bytes unread resets the connection, and the
	// reset may overtake the text.
	if cw, ok := c.(interface{ CloseWrite() error }); ok && cw.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, tellDrain)
	}
}

// Listen opens the socket of a listener: TCP at address, or a Unix socket at
// path with the permissions of mode when path is not empty. A socket that a
// server left behind when it was killed is removed; one that is in use, and
// anything else at that path, is an error.
func Listen(lc *net.ListenConfig, address, path string, mode os.FileMode) (net.Listener, error) {
	if path == "" {
		return lc.Listen(context.Background(), "tcp", address)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// wsaeconnrefused is ECONNREFUSED as Windows numbers it.
const wsaeconnrefused = syscall.Errno(10061)

func removeStale(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return fmt.Errorf("socket %s is in use by another process", path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaeconnrefused):
		return os.Remove(path)
	}
	return err
}
