package main

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// The fixed part of a v2 header, and the address block after it.
const (
	fixedLen  = 16
	blockLen4 = 12
	blockLen6 = 36
	crcLen    = 4
	tlvHead   = 3
)

// notVerified is what the SSL TLV's verify field says of a client without a
// verified certificate. Any number but 0 will do.
const notVerified = 1

// formatHeader makes the PROXY v2 header for a connection from source to
// destination. state is the client's TLS, nil when none was ended here.
func formatHeader(source, destination net.Addr, state *tls.ConnectionState) ([]byte, error) {
	h := proxyproto.HeaderProxyFromAddrs(2, source, destination)
	if h.Command != proxyproto.PROXY {
		return nil, fmt.Errorf("no PROXY header for a connection from %v to %v", source, destination)
	}
	// The checksum goes first: its place is then known.
	tlvs := []proxyproto.TLV{{Type: proxyproto.PP2_TYPE_CRC32C, Value: make([]byte, crcLen)}}
	if state != nil {
		more, err := tlsTLVs(state)
		if err != nil {
			return nil, err
		}
		tlvs = append(tlvs, more...)
	}
	if err := h.SetTLVs(tlvs); err != nil {
		return nil, err
	}
	b, err := h.Format()
	if err != nil {
		return nil, err
	}

	block := blockLen4
	if h.TransportProtocol.IsIPv6() {
		block = blockLen6
	}
	at := fixedLen + block + tlvHead
	binary.BigEndian.PutUint32(b[at:at+crcLen], checksum(b))
	return b, nil
}

// checksum is the CRC32C of a header whose own checksum bytes are zero.
func checksum(header []byte) uint32 {
	return crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
}

func tlsTLVs(state *tls.ConnectionState) ([]proxyproto.TLV, error) {
	var tlvs []proxyproto.TLV
	if p := state.NegotiatedProtocol; p != "" {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_ALPN, Value: []byte(p)})
	}
	if name := state.ServerName; name != "" {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(name)})
	}

	ssl := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL,
		Verify: notVerified,
		TLV: []proxyproto.TLV{
			{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(versionName(state.Version))},
			{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(tls.CipherSuiteName(state.CipherSuite))},
		},
	}
	// The chains are there only after verification.
	if len(state.VerifiedChains) > 0 {
		ssl.Verify = 0
		ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
		if !state.DidResume {
			ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN
		}
		if cn := state.PeerCertificates[0].Subject.CommonName; cn != "" {
			ssl.TLV = append(ssl.TLV, proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(cn)})
		}
	}
	tlv, err := ssl.Marshal()
	if err != nil {
		return nil, err
	}
	return append(tlvs, tlv), nil
}

// versionName is the name that the other proxies use.
func versionName(version uint16) string {
	switch version {
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(version)
}
