package server

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/nats-io/jwt/v2"

	"nats-trusted-proxy/server/accept"
	"nats-trusted-proxy/server/listener"
)

// RunMakeBuildToPatchUpstream is what main.go needs and upstream does not have.
const RunMakeBuildToPatchUpstream = true

// serverListeners are the named listeners of a server. The zero value has none.
type serverListeners struct {
	mu      sync.Mutex                // taken after the server's, where both are
	running map[string]*namedListener // by name
	opened  map[string]*namedListener // by name, between prepare and apply of a reload
	err     error                     // why one could not be opened
	stopped bool                      // lame duck or shutdown: nothing is opened any more
}

// namedListener is one listener that is open.
type namedListener struct {
	srv    *Server
	accept *accept.Listener
	// opened are the options that its socket was opened with.
	opened *listenerOpts
	view   atomic.Pointer[listenerView]
}

// listenerView is what the server's options mean for a listener. It is made when
// the listener starts, and in a reload each time that upstream has changed its
// options; nothing of it is kept for longer.
type listenerView struct {
	lo     *listenerOpts
	opts   *Options       // the server's, with the listener's own values in them
	policy *accept.Policy // who gets in
}

// current returns the view in force.
func (l *namedListener) current() *listenerView { return l.view.Load() }

// currentPolicy returns who gets in.
func (l *namedListener) currentPolicy() *accept.Policy { return l.current().policy }

// refresh makes the view from the server's options and these of the listener.
// Server lock held on entry, for reading at least: upstream writes the ports it
// got into its options under it.
func (l *namedListener) refresh(lo *listenerOpts) {
	opts := new(Options)
	l.srv.optsMu.RLock()
	*opts = *l.srv.opts
	l.srv.optsMu.RUnlock()
	opts.TLSConfig = lo.tlsConfig
	opts.TLSTimeout, opts.TLSMap, opts.TLSPinnedCerts = 0, false, nil
	opts.TLSHandshakeFirst, opts.TLSHandshakeFirstFallback = false, 0
	opts.AllowNonTLS = lo.AllowNonTLS
	if to := lo.tlsOpts; to != nil {
		opts.TLSTimeout, opts.TLSMap, opts.TLSPinnedCerts = to.Timeout, to.Map, to.PinnedCerts
		opts.TLSHandshakeFirst, opts.TLSHandshakeFirstFallback = to.HandshakeFirst, to.FallbackDelay
	}
	if opts.TLSTimeout == 0 {
		opts.TLSTimeout = TLS_TIMEOUT.Seconds()
	}
	// Upstream's own header reading has no business here: ours is done.
	opts.ProxyProtocol = false
	policy := &accept.Policy{MaxHandshakes: lo.MaxHandshakes}
	if pp := lo.ProxyProtocol; pp != nil {
		policy.ProxyProtocol = &accept.ProxyProtocol{
			Trusted:       pp.Trusted,
			HeaderTimeout: pp.HeaderTimeout,
			Limits:        pp.Limits,
		}
		// The clients of a trusted-proxy listener come from outside: a user for
		// clients without credentials is meant for those inside. The one that
		// upstream makes up where there is no authentication at all is not.
		if opts.NoAuthUser != l.srv.sysAccOnlyNoAuthUser {
			opts.NoAuthUser = _EMPTY_
		}
	}
	l.view.Store(&listenerView{lo: lo, opts: opts, policy: policy})
}

// hostPort returns the host and port for INFO: those that were asked for, with
// the port that the system chose where it was left to it. Both are zero for a
// Unix socket.
func (l *namedListener) hostPort() (string, int) {
	addr, ok := l.accept.Addr().(*net.TCPAddr)
	if !ok {
		return _EMPTY_, 0
	}
	return l.opened.Host, addr.Port
}

// address returns where the listener listens, for the log.
func (l *namedListener) address() string {
	if host, port := l.hostPort(); port != 0 {
		return net.JoinHostPort(host, fmt.Sprint(port))
	}
	return l.opened.Address()
}

// openListener opens the socket of a listener and takes nothing in yet.
func (s *Server) openListener(lo *listenerOpts) (*namedListener, error) {
	ln, err := accept.Listen(natsListenConfig, lo.dialAddress(), lo.SocketPath, lo.SocketMode)
	if err != nil {
		return nil, fmt.Errorf("error listening on %s for listener %q: %w", lo.Address(), lo.Name, err)
	}
	l := &namedListener{srv: s, opened: lo}
	l.accept = accept.New(ln, accept.Config{
		Name:    lo.Name,
		Owner:   l,
		Policy:  l.currentPolicy,
		Handoff: l.createClient,
		Go: func(f func()) bool {
			return s.startGoRoutine(func() { defer s.grWG.Done(); f() })
		},
		Log: s,
	})
	return l, nil
}

// serve starts to take connections in and says so.
// Server lock held on entry.
func (l *namedListener) serve() {
	s, lo := l.srv, l.opened
	l.refresh(lo)
	if !s.startGoRoutine(func() { defer s.grWG.Done(); l.accept.Serve() }) {
		l.accept.Close()
		return
	}
	s.Noticef("Listening for client connections on %s (listener %q)", l.address(), lo.Name)
	if pp := lo.ProxyProtocol; pp != nil {
		from := pp.Trusted.String()
		if lo.SocketPath != _EMPTY_ {
			from = "whoever may open the socket"
		}
		s.Noticef("PROXY protocol required on listener %q, trusted: %s", lo.Name, from)
		if pp.Trusted.TrustsEveryone() {
			s.Warnf("Listener %q trusts every address: whoever can reach its port can claim to be any client", lo.Name)
		}
	}
	if to := lo.tlsOpts; to != nil {
		firstOnly := to.HandshakeFirst && to.FallbackDelay == 0
		if lo.AllowNonTLS && !firstOnly {
			s.Noticef("TLS available for client connections on listener %q", lo.Name)
		} else {
			s.Noticef("TLS required for client connections on listener %q", lo.Name)
		}
		if firstOnly {
			s.Warnf("Clients of listener %q that are not using \"TLS Handshake First\" option will fail to connect", lo.Name)
		}
		if !lo.NoAdvertise && len(lo.Advertise) == 0 && s.getOpts().TLSConfig == nil {
			s.Warnf("Clients of listener %q are told the addresses of the main port, which does no TLS, set advertise or no_advertise", lo.Name)
		}
	}
}

// createClient hands a connection over to upstream, under the lock that its own
// accept loops hold for that.
func (l *namedListener) createClient(conn net.Conn) {
	s := l.srv
	s.reloadMu.RLock()
	c := s.createClient(conn)
	s.reloadMu.RUnlock()
	// A connection that was let through just before lame duck began is left
	// alone by upstream, neither registered nor closed.
	if c != nil && s.isLameDuckMode() && s.getClient(c.cid) == nil {
		conn.Close()
	}
}

// startListeners opens all listeners of the configuration and then serves them.
// One that cannot be opened is fatal.
func (s *Server) startListeners() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.stopped || s.isShuttingDown() {
		return
	}
	if sl.running == nil {
		sl.running = make(map[string]*namedListener)
	}
	for _, lo := range s.getOpts().listeners {
		l, err := s.openListener(lo)
		if err != nil {
			sl.err = err
			s.Fatalf("%v", err)
			return
		}
		sl.running[lo.Name] = l
	}
	for _, lo := range s.getOpts().listeners {
		sl.running[lo.Name].serve()
	}
}

// stopListeners stops accepting on all listeners, for good, and closes the
// connections that are no clients yet. It does not wait: goroutines that are
// left are counted by the server.
// Server lock held on entry.
func (s *Server) stopListeners() {
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.stopped = true
	for _, l := range sl.running {
		l.accept.Close()
	}
	for _, l := range sl.opened {
		l.accept.Close()
	}
}

// listenersReadiness adds the listeners to what readiness is made of. The type
// parameter is there because that type is local to upstream's function.
func listenersReadiness[T ~struct {
	ok  bool
	err error
}](s *Server, chk map[string]T) {
	want := s.getOpts().listeners
	if len(want) == 0 {
		return
	}
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	ok := sl.err == nil && !sl.stopped
	for _, lo := range want {
		ok = ok && sl.running[lo.Name] != nil
	}
	chk["listeners"] = T(struct {
		ok  bool
		err error
	}{ok, sl.err})
}

// prepareListeners opens what a reload adds or moves, while everything old is
// still open. With an error nothing has changed.
// reloadMu held on entry.
func (s *Server) prepareListeners(newOpts *Options) error {
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.stopped {
		return nil
	}
	opened := make(map[string]*namedListener)
	for _, lo := range newOpts.listeners {
		if old := sl.running[lo.Name]; old != nil && old.opened.sameSocket(lo) {
			continue
		}
		l, err := s.openListener(lo)
		if err != nil {
			for _, l := range opened {
				l.accept.Close()
			}
			return err
		}
		opened[lo.Name] = l
	}
	sl.opened = opened
	return nil
}

// refreshListeners makes the views of the open listeners from the current options.
// A listener that the options do not have any more keeps its own for the clients
// that it has.
// reloadMu held on entry.
func (s *Server) refreshListeners() {
	opts := s.getOpts()
	s.mu.RLock()
	defer s.mu.RUnlock()
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	for name, l := range sl.running {
		lo := opts.listenerNamed(name)
		if lo == nil {
			lo = l.current().lo
		}
		l.refresh(lo)
	}
}

// applyListeners puts in force what prepareListeners opened: new sockets are
// served, then old ones closed. Clients stay.
// reloadMu held on entry.
func (s *Server) applyListeners(curOpts, newOpts *Options) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if sl.stopped {
		return
	}
	if sl.running == nil {
		sl.running = make(map[string]*namedListener)
	}
	var closing []*namedListener
	for name, l := range sl.running {
		if newOpts.listenerNamed(name) == nil {
			delete(sl.running, name)
			closing = append(closing, l)
			s.Noticef("Reloaded: listener %q removed", name)
		}
	}
	for name, l := range sl.opened {
		if old := sl.running[name]; old != nil {
			closing = append(closing, old)
		}
		sl.running[name] = l
		l.serve()
		s.Noticef("Reloaded: listener %q opened on %s", name, l.address())
	}
	sl.opened, sl.err = nil, nil
	for _, l := range closing {
		l.accept.Close()
	}
	for _, lo := range newOpts.listeners {
		// Once more: OCSP stapling has made TLS configurations of its own.
		sl.running[lo.Name].refresh(lo)
		if lo.SocketPath != _EMPTY_ {
			if err := os.Chmod(lo.SocketPath, lo.SocketMode); err != nil {
				s.Errorf("Reloaded: listener %q: socket_mode could not be set: %v", lo.Name, err)
			}
		}
		if old := curOpts.listenerNamed(lo.Name); old != nil && !lo.sameOptions(old) {
			s.Noticef("Reloaded: listener %q changed", lo.Name)
		}
	}
}

// recheckListenerPinnedCerts closes the clients of listeners whose certificate
// is not among the pinned ones any more.
// Lock must not be held.
func (s *Server) recheckListenerPinnedCerts(curOpts, newOpts *Options) {
	changed := make(map[string]PinnedCertSet)
	for _, lo := range newOpts.listeners {
		if old := curOpts.listenerNamed(lo.Name); old != nil && !reflect.DeepEqual(old.pinnedCerts(), lo.pinnedCerts()) {
			changed[lo.Name] = lo.pinnedCerts()
		}
	}
	if len(changed) == 0 {
		return
	}
	s.mu.RLock()
	clients := make([]*client, 0, len(s.clients))
	for _, c := range s.clients {
		if c.lsn != nil {
			clients = append(clients, c)
		}
	}
	s.mu.RUnlock()
	for _, c := range clients {
		if pinned, ok := changed[c.lsn.name()]; ok && !c.matchesPinnedCert(pinned) {
			c.closeConnection(TLSHandshakeError)
		}
	}
}

// appendListenerTLSConfigs adds the tls blocks of the listeners to those that
// OCSP stapling and OCSP peer checks look after.
func (s *Server) appendListenerTLSConfigs(configs []*tlsConfigKind) []*tlsConfigKind {
	for _, lo := range s.getOpts().listeners {
		if lo.tlsConfig != nil {
			configs = append(configs, &tlsConfigKind{
				kind:      kindStringMap[CLIENT],
				tlsConfig: lo.tlsConfig,
				tlsOpts:   lo.tlsOpts,
				apply:     func(tc *tls.Config) { lo.tlsConfig = tc },
			})
		}
	}
	return configs
}

// listenersMapCerts reports whether verify_and_map on a listener could select
// this user, which makes it a certificate identity (see canTLSMap).
func (o *Options) listenersMapCerts(u *User) bool {
	return slices.ContainsFunc(o.listeners, func(lo *listenerOpts) bool {
		if lo.tlsOpts == nil || !lo.tlsOpts.Map {
			return false
		}
		_, ok := u.AllowedConnectionTypes[jwt.ConnectionTypeStandard]
		return ok || len(u.AllowedConnectionTypes) == 0
	})
}

// dialAddress is the address for net.Listen.
func (lo *listenerOpts) dialAddress() string {
	o := listener.Options{Host: lo.Host, Port: max(lo.Port, 0)}
	return o.Address()
}

// ListenerAddr returns the address that the named listener listens on, and nil
// while it is not open.
func (s *Server) ListenerAddr(name string) net.Addr {
	sl := &s.listeners
	sl.mu.Lock()
	defer sl.mu.Unlock()
	if l := sl.running[name]; l != nil && !sl.stopped {
		return l.accept.Addr()
	}
	return nil
}
