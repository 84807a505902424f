// Package listener holds what one named listener is: its options, how they are
// read from a configuration, which of them contradict each other, and what a
// client is told about TLS because of them.
//
// It knows nothing of sockets (package accept does) and nothing of upstream's
// types: tokens of a configuration come in by the Token interface, which
// upstream's tokens satisfy as they are, and the tls block is left to the
// caller, who owns upstream's parser for it.
package listener

import (
	"io/fs"
	"net"
	"strconv"
	"time"

	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/trust"
)

// Defaults of the options. They are stated here and nowhere else; the option
// reference is held against them by a test.
const (
	DefaultHost                      = "0.0.0.0"
	DefaultSocketMode    fs.FileMode = 0o660
	DefaultMaxHandshakes             = 1024
	DefaultHeaderTimeout             = 5 * time.Second
	DefaultMaxHeader                 = proxyheader.DefaultMaxHeader

	// minHeaderTimeout leaves room for one retransmitted segment
	// (proxy-protocol.txt section 2).
	minHeaderTimeout = 3 * time.Second
	maxHeaderTimeout = 5 * time.Minute
	// minMaxHeader is the fixed part of a v2 header and the largest address
	// block of TCP (sections 2.2 and 2.2.1).
	minMaxHeader = 16 + 36
	maxMaxHeader = 16 + 1<<16 - 1
)

// Options is one listener, after parsing: no default is left to be applied.
type Options struct {
	// Name is the key in the listeners map. Letters, digits, '-' and '_'.
	Name string

	// Host and Port are the TCP address. Host is DefaultHost, every interface,
	// where only a port was given; port -1 is a free port chosen by the system.
	// Both are zero with SocketPath.
	Host string
	Port int

	// SocketPath is the path of a Unix domain socket; empty for TCP.
	SocketPath string
	// SocketMode are the permissions of that socket.
	SocketMode fs.FileMode

	// TLS says that the listener has a tls block: it ends TLS itself.
	TLS bool
	// AllowNonTLS lets clients that do not start TLS in, as upstream's option
	// of that name does. Only with TLS.
	AllowNonTLS bool

	// ProxyProtocol makes this a trusted-proxy listener. Nil: the socket peer
	// is the client.
	ProxyProtocol *ProxyProtocol

	// AdvertiseTLS is what INFO says about TLS that is not done here. Always
	// Never with TLS.
	AdvertiseTLS AdvertiseTLS

	// Advertise are the host:port that clients of this listener get as
	// connect_urls; the first is also the host and port of INFO. Empty: see
	// NoAdvertise.
	Advertise []string
	// NoAdvertise withholds connect_urls. False without Advertise: clients get
	// those of the main port, as upstream sends them.
	NoAdvertise bool

	// MaxHandshakes bounds the connections whose header or TLS handshake is
	// not done yet. At least 1.
	MaxHandshakes int
}

// ProxyProtocol are the options of a listener's proxy_protocol block.
type ProxyProtocol struct {
	// Trusted are the peers whose header is believed. Nobody else gets to send
	// or receive a byte. Empty only for a Unix socket, where the permissions
	// of the socket decide.
	Trusted trust.List
	// HeaderTimeout is the one deadline for the whole header.
	HeaderTimeout time.Duration
	// Limits bound and judge the header.
	Limits proxyheader.Limits

	trustedSet bool // trusted was written down, well or badly
}

// Address returns what the listener listens on as the log and the errors name
// it: host:port, or unix: and the path.
func (o *Options) Address() string {
	if o.SocketPath != "" {
		return unixPrefix + o.SocketPath
	}
	return net.JoinHostPort(o.Host, strconv.Itoa(o.Port))
}

// AdvertiseTLS is a policy for the TLS fields of INFO on a listener that does
// no TLS itself.
type AdvertiseTLS uint8

const (
	// AdvertiseNever sends no TLS field at all.
	AdvertiseNever AdvertiseTLS = iota
	// AdvertiseAuto sends tls_available to a client whose own leg is proved to
	// be TLS, since some clients refuse to go on without it, and nothing to
	// anybody else.
	AdvertiseAuto
	// AdvertiseAvailable sends tls_available to every client, for proxies that
	// cannot prove anything.
	AdvertiseAvailable
	// AdvertiseRequired sends tls_required to every client.
	AdvertiseRequired
)

var advertiseNames = [...]string{"never", "auto", "available", "required"}

// String returns the policy as it is written in a configuration.
func (a AdvertiseTLS) String() string { return advertiseNames[a] }

// Fields returns the values of tls_available and tls_required for a client.
// proved says that the header proves that the client's leg is TLS.
func (a AdvertiseTLS) Fields(proved bool) (available, required bool) {
	switch a {
	case AdvertiseAuto:
		return proved, false
	case AdvertiseAvailable:
		return true, false
	case AdvertiseRequired:
		return false, true
	}
	return false, false
}
