package proxyheader

import "net/netip"

// DefaultMaxHeader is the longest version 2 header, in bytes, that is read when
// [Limits.MaxHeader] is zero. It leaves room for a client certificate.
const DefaultMaxHeader = 4096

// CRCPolicy says what is asked of a header's checksum (section 2.2.3).
type CRCPolicy uint8

const (
	// CRCVerify, the zero value, verifies the checksum of a header that has
	// one, and takes a header that has none.
	CRCVerify CRCPolicy = iota
	// CRCRequire refuses a header that has none as well, which all version 1
	// headers are. A LOCAL header is taken: nothing in it is used, and its
	// block has no known layout in which to find a checksum.
	CRCRequire
)

// Limits bounds what [Read] accepts. The zero value is ready for use.
type Limits struct {
	// MaxHeader is the longest version 2 header in bytes, the sixteen fixed
	// ones included. Zero (or less) means DefaultMaxHeader. The protocol
	// itself ends at 65551. A version 1 line has 107 bytes at most, always.
	MaxHeader int
	// CRC32C is what is asked of the checksum. Zero means CRCVerify.
	CRC32C CRCPolicy
}

// maxHeader is the one place where MaxHeader's zero is given its meaning.
func (l Limits) maxHeader() int {
	if l.MaxHeader <= 0 {
		return DefaultMaxHeader
	}
	return l.MaxHeader
}

// Header is what one header said. It shares no memory with the reader.
type Header struct {
	// Version is 1 or 2.
	Version int
	// Local is true for LOCAL (version 2) and UNKNOWN (version 1): the
	// connection's own endpoints are the ones to use, and every field below
	// is zero.
	Local bool
	// Source is the client, Destination what it connected to. IPv4-mapped
	// addresses are IPv4 here. Both are valid unless Local; a port may be 0.
	Source, Destination netip.AddrPort
	// TLS is nil when the header has no SSL TLV. Ask [TLS.Proved] and
	// [TLS.CertProved], which take nil, rather than compare with nil.
	TLS *TLS
	// ALPN is the application protocol the client and the proxy agreed on,
	// empty when not told. It has no control characters, but may be any other
	// bytes (section 2.2.1).
	ALPN string
	// SNI is the host name the client asked for: the AUTHORITY TLV, empty when
	// not told. It is an ASCII host name (section 2.2.2).
	SNI string
	// UniqueID is the proxy's opaque name for this connection, at most 128
	// bytes, nil when not told (section 2.2.5).
	UniqueID []byte
	// TLVs are all top-level TLVs in their order, those above and unknown ones
	// included, padding (NOOP) left out. Nil when there are none.
	TLVs []TLV
}

// TLV is one type, length and value vector of a version 2 header.
type TLV struct {
	Type  byte
	Value []byte
}

// TLV returns the value of the first TLV of that type, and false when there is
// none. A present but empty one gives an empty value and true.
func (h *Header) TLV(typ byte) ([]byte, bool) {
	for i := range h.TLVs {
		if h.TLVs[i].Type == typ {
			return h.TLVs[i].Value, true
		}
	}
	return nil, false
}

// TLS is what the proxy says about the client's own leg (section 2.2.6).
type TLS struct {
	// ClientTLS says that the client speaks TLS to the proxy.
	ClientTLS bool
	// CertConn and CertSess say that the client gave a certificate, on this
	// connection or earlier in this TLS session.
	CertConn, CertSess bool
	// Verify is zero if a certificate was given and verified, but also, with
	// several proxies, when there was none. See [TLS.CertProved].
	Verify uint32
	// Version, such as "TLSv1.3", is never empty with ClientTLS.
	Version string
	// Cipher is the cipher suite in the proxy's spelling, empty when not told.
	Cipher string
	// ClientCN is the common name in the client's certificate, UTF-8 without
	// control characters, empty when not told.
	ClientCN string
	// ClientCert is the client's certificate, DER, not parsed here. Nil when
	// not told.
	ClientCert []byte
}

// Proved reports whether the header proves that the client's own leg is TLS:
// there is an SSL TLV and it has the client flag. It is false for nil.
func (t *TLS) Proved() bool { return t != nil && t.ClientTLS }

// CertProved reports whether the header proves that the client gave a
// certificate and that the proxy verified it: Proved, one of the two
// certificate flags, and a verify result of zero. It is false for nil.
func (t *TLS) CertProved() bool {
	return t.Proved() && (t.CertConn || t.CertSess) && t.Verify == 0
}
