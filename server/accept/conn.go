package accept

import (
	"net"
	"net/netip"

	"nats-trusted-proxy/server/proxyheader"
)

// Info is what is known of a connection besides its bytes. It does not change
// once the connection was handed over.
type Info struct {
	// Owner is Config.Owner of the listener that accepted the connection.
	Owner any
	// ProxiedBy is the socket peer when the client's address came from a
	// header: ip:port, or unix: and the path of the socket. Empty when the
	// socket peer is the client.
	ProxiedBy string
	// Header is the header that was read. Nil on a listener without
	// proxy_protocol.
	Header *proxyheader.Header

	remote net.Addr
}

// InfoOf returns what this package knows of a connection that it handed over,
// and nil for any other.
func InfoOf(c net.Conn) *Info {
	if c, ok := c.(interface{ acceptInfo() *Info }); ok {
		return c.acceptInfo()
	}
	return nil
}

// tcpConn is a connection whose remote address is the client's.
//
// It embeds the concrete type, not net.Conn: net.Buffers finds writev by a
// method of *net.TCPConn that nobody outside package net can name, and that is
// promoted only so. Nothing stands between the caller and the socket, neither
// reading nor writing.
type tcpConn struct {
	*net.TCPConn
	info Info
}

func (c *tcpConn) RemoteAddr() net.Addr { return c.info.remote }
func (c *tcpConn) acceptInfo() *Info    { return &c.info }

// unixConn is the same for a Unix domain socket.
type unixConn struct {
	*net.UnixConn
	info Info
}

func (c *unixConn) RemoteAddr() net.Addr { return c.info.remote }
func (c *unixConn) acceptInfo() *Info    { return &c.info }

// wrap makes the connection that is handed over. It panics on a type that no
// listener of this package accepts.
func wrap(c net.Conn, info Info) net.Conn {
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{c, info}
	case *net.UnixConn:
		return &unixConn{c, info}
	}
	panic("accept: neither a TCP nor a Unix connection")
}

// peerOf returns the address of the socket peer, IPv4 where it is IPv4-mapped;
// the zero value for a Unix socket.
func peerOf(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
