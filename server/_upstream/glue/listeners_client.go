package server

import (
	"crypto/tls"
	"net"

	"nats-trusted-proxy/server/accept"
)

// clientListener is what a client knows of the named listener it came in by.
type clientListener struct {
	l    *namedListener
	info *accept.Info
	// The TLS fields of the first INFO. Later ones repeat them: clients do not
	// take it well when INFO changes its mind. Client lock.
	tlsAvailable, tlsRequired, tlsVerify bool
}

// newClientListener returns nil for a connection that no named listener accepted.
func newClientListener(conn net.Conn) *clientListener {
	info := accept.InfoOf(conn)
	if info == nil {
		return nil
	}
	return &clientListener{l: info.Owner.(*namedListener), info: info}
}

func (cl *clientListener) name() string { return cl.l.opened.Name }

// listenerOptions returns the options that are in force for this client: the
// server's, or those of its listener made from them.
func (c *client) listenerOptions(opts *Options) *Options {
	if c.lsn == nil {
		return opts
	}
	return c.lsn.l.current().opts
}

// listenerOptionsFor is the same for a connection that is no client yet.
func listenerOptionsFor(conn net.Conn, opts *Options) *Options {
	if info := accept.InfoOf(conn); info != nil {
		return info.Owner.(*namedListener).current().opts
	}
	return opts
}

// setListenerTLSInfo sets what upstream decides by whether to do TLS with this
// client, from the client's effective options.
func (c *client) setListenerTLSInfo(info *Info, opts *Options) {
	if c.lsn == nil {
		return
	}
	tc := opts.TLSConfig
	info.TLSRequired = tc != nil && !opts.AllowNonTLS
	info.TLSAvailable = tc != nil && opts.AllowNonTLS
	info.TLSVerify = tc != nil && tc.ClientAuth == tls.RequireAndVerifyClientCert
}

// setListenerInfo makes any INFO the one of the client's listener: what it says
// of TLS, and which addresses it gives away.
// Client lock held on entry.
func (c *client) setListenerInfo(info *Info) {
	cl := c.lsn
	if cl == nil {
		return
	}
	v := cl.l.current()
	if !c.flags.isSet(firstPongSent) {
		// With TLS here the fields are those that upstream acts by.
		if !v.lo.TLS {
			proved := cl.info.Header != nil && cl.info.Header.TLS.Proved()
			info.TLSAvailable, info.TLSRequired = v.lo.AdvertiseTLS.Fields(proved)
			info.TLSVerify = false
		}
		cl.tlsAvailable, cl.tlsRequired, cl.tlsVerify = info.TLSAvailable, info.TLSRequired, info.TLSVerify
	}
	info.TLSAvailable, info.TLSRequired, info.TLSVerify = cl.tlsAvailable, cl.tlsRequired, cl.tlsVerify

	info.Host, info.Port = cl.l.hostPort()
	switch {
	case len(v.lo.Advertise) > 0:
		info.Host, info.Port = v.lo.advertiseHost, v.lo.advertisePort
		info.ClientConnectURLs = v.lo.Advertise
	case v.lo.NoAdvertise:
		info.ClientConnectURLs = nil
	}
}

// fillListener adds the listener's part to what is shown of a connection.
// Client lock held on entry.
func (ci *ConnInfo) fillListener(c *client) {
	if cl := c.lsn; cl != nil {
		ci.Listener = cl.name()
		ci.ProxiedBy = cl.info.ProxiedBy
	}
}

// isListenerClient reports whether the client came in by a named listener.
func (c *client) isListenerClient() bool { return c.lsn != nil }
