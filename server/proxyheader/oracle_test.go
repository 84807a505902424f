package proxyheader

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// oracle reads a header with the library alone, SSL TLV included, as someone
// would who used all of it and added nothing.
func oracle(raw []byte) (h *proxyproto.Header, tlvs []proxyproto.TLV, ssl *tlvparse.PP2SSL, err error) {
	if h, err = proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), 1<<17)); err != nil {
		return nil, nil, nil, err
	}
	if tlvs, err = h.TLVs(); err != nil {
		return nil, nil, nil, err
	}
	for _, v := range tlvs {
		if v.Type == proxyproto.PP2_TYPE_SSL {
			s, err := tlvparse.SSL(v)
			if err != nil {
				return nil, nil, nil, err
			}
			return h, tlvs, &s, nil
		}
	}
	return h, tlvs, nil, nil
}

// disagreement compares what we accepted with what the library says of the same
// bytes; empty means that both mean the same.
func disagreement(raw []byte, h *Header) string {
	o, tlvs, ssl, err := oracle(raw)
	switch {
	case err != nil:
		return "only the library refuses: " + err.Error()
	case int(o.Version) != h.Version:
		return fmt.Sprintf("version %d", o.Version)
	case h.Local != o.Command.IsLocal():
		return fmt.Sprintf("command %#x", byte(o.Command))
	case h.Local && (o.SourceAddr != nil || len(tlvs) > 0):
		return "the library has addresses or TLVs for LOCAL"
	case h.Local:
		return ""
	}
	src, okSrc := o.SourceAddr.(*net.TCPAddr)
	dst, okDst := o.DestinationAddr.(*net.TCPAddr)
	if !okSrc || !okDst || unmap(src.AddrPort()) != h.Source || unmap(dst.AddrPort()) != h.Destination {
		return fmt.Sprintf("addresses %v %v", o.SourceAddr, o.DestinationAddr)
	}
	var kept []TLV
	for _, v := range tlvs {
		if v.Type != proxyproto.PP2_TYPE_NOOP {
			kept = append(kept, TLV{byte(v.Type), v.Value})
		}
	}
	if fmt.Sprintf("%q", kept) != fmt.Sprintf("%q", h.TLVs) {
		return fmt.Sprintf("TLVs %q", kept)
	}
	if (ssl == nil) != (h.TLS == nil) {
		return "SSL TLV"
	}
	if ssl != nil {
		version, _ := ssl.SSLVersion()
		cipher, _ := ssl.SSLCipher()
		cn, _ := ssl.ClientCN()
		cert, _ := ssl.ClientCert()
		t := h.TLS
		if ssl.ClientSSL() != t.ClientTLS || ssl.ClientCertConn() != t.CertConn || ssl.ClientCertSess() != t.CertSess ||
			ssl.Verify != t.Verify || version != t.Version || cipher != t.Cipher || cn != t.ClientCN || !bytes.Equal(cert, t.ClientCert) {
			return fmt.Sprintf("SSL %+v", *ssl)
		}
	}
	return ""
}

// TestProxyProtoOracleDifferences lists each way in which we differ from the
// library, with its reason. A difference that is not listed fails, and so does
// one that is listed and gone: the library has changed then.
func TestProxyProtoOracleDifferences(t *testing.T) {
	tls13 := tlv(0x21, "TLSv1.3")
	inputs := map[string][]byte{
		"v1 leading zero in a port":       []byte("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"),
		"v1 leading zero in an address":   []byte("PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n"),
		"v1 two spaces":                   []byte("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"),
		"v1 zone":                         []byte("PROXY TCP6 fe80::1%1 ::1 1 2\r\n"),
		"v1 IPv4 in TCP6":                 []byte("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"),
		"v1 LF alone":                     []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"),
		"v1 trailing space":               []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"),
		"v1 multicast source":             []byte("PROXY TCP4 224.0.0.1 5.6.7.8 1 2\r\n"),
		"v1 UNKNOWN with a CR in it":      []byte("PROXY UNKNOWN a\rb\r\n"),
		"v1 UNKNOWN with a LF in it":      []byte("PROXY UNKNOWN a\nb\r\n"),
		"v2 21 12 0000":                   v2(cmdProxy, 0x12),
		"v2 UDP":                          v2(cmdProxy, 0x12, client4),
		"v2 Unix":                         v2(cmdProxy, 0x31, []byte("/a"), make([]byte, 214)),
		"v2 UNSPEC":                       v2(cmdProxy, 0x00),
		"v2 LOCAL, undefined family":      v2(cmdLocal, 0x13),
		"v2 LOCAL, family of 0xff":        v2(cmdLocal, 0xff, client4),
		"v2 LOCAL, UNSPEC and garbage":    v2(cmdLocal, 0x00, []byte("\xe0\xff\xff")),
		"v2 wrong checksum":               v2(cmdProxy, famTCP4, client4, tlv(0x03, "none")),
		"v2 checksum of 3 bytes":          v2(cmdProxy, famTCP4, client4, tlv(0x03, "non")),
		"v2 bytes after the last TLV":     v2(cmdProxy, famTCP4, client4, []byte{0xe0, 0}),
		"v2 TLV over the end":             v2(cmdProxy, famTCP4, client4, []byte{0xe0, 0, 9, 'x'}),
		"v2 sub-TLV over the end":         v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tls13, []byte{0x22, 0, 9, 'x'})),
		"v2 SSL flag, no version":         v2(cmdProxy, famTCP4, client4, sslTLV(1, 0)),
		"v2 empty CN":                     v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tls13, tlv(0x22, ""))),
		"v2 two CNs":                      v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tls13, tlv(0x22, "a"), tlv(0x22, "b"))),
		"v2 empty certificate":            v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tls13, tlv(0x28, ""))),
		"v2 two SSL TLVs":                 v2(cmdProxy, famTCP4, client4, sslTLV(0, 0), sslTLV(1, 0, tls13)),
		"v2 two AUTHORITY TLVs":           v2(cmdProxy, famTCP4, client4, tlv(0x02, "a"), tlv(0x02, "b")),
		"v2 AUTHORITY is no name":         v2(cmdProxy, famTCP4, client4, tlv(0x02, "a b")),
		"v2 control character in the CN":  v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tls13, tlv(0x22, "a\nb"))),
		"v2 control character in ALPN":    v2(cmdProxy, famTCP4, client4, tlv(0x01, "\n")),
		"v2 control character in version": v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLS\x00"))),
		"v2 unique id of 129 bytes":       v2(cmdProxy, famTCP4, client4, tlv(0x05, strings.Repeat("x", 129))),
		"v2 unspecified source":           v2(cmdProxy, famTCP4, addrBlock("0.0.0.0:1", "1.2.3.4:2")),
		"v2 short block":                  v2(cmdProxy, famTCP4, client4[:11]),
		"v2 header of 4097 bytes":         v2(cmdProxy, famTCP4, client4, tlv(0xe0, strings.Repeat("x", 4097-16-12-3))),
	}
	for name, raw := range validHeaders {
		inputs[name] = raw
	}

	const (
		lenient  = "only we refuse"
		strictly = "only the library refuses"
		local    = "the library has addresses or TLVs for LOCAL"
	)
	differences := map[string]struct{ kind, why string }{
		"v1 multicast source":             {lenient, "no client has that address"},
		"v1 UNKNOWN with a CR in it":      {lenient, "2.1: a lone CR ends no line; it may be the end to somebody else"},
		"v2 UDP":                          {lenient, "NATS has no UDP"},
		"v2 Unix":                         {lenient, "a path is no client's address"},
		"v2 LOCAL, undefined family":      {strictly, "2.2: the family is ignored for LOCAL"},
		"v2 LOCAL, family of 0xff":        {strictly, "2.2: the family is ignored for LOCAL"},
		"v2 LOCAL, UNSPEC and garbage":    {strictly, "2.2: the block is thrown away for LOCAL"},
		"v2 LOCAL block":                  {local, "2.2: the block is thrown away for LOCAL"},
		"v2 NLB check":                    {local, "2.2: TLVs stand where the family byte promises addresses, and the library takes them for addresses"},
		"v2 LOCAL long":                   {strictly, "2.2: the block is thrown away for LOCAL"},
		"v2 wrong checksum":               {lenient, "2.2.3: it must be verified"},
		"v2 checksum of 3 bytes":          {lenient, "2.2.3: it has 32 bits"},
		"v2 two CNs":                      {lenient, "two names for one client are none"},
		"v2 empty certificate":            {lenient, "it is no certificate"},
		"v2 two SSL TLVs":                 {lenient, "the first says no TLS, the second TLS"},
		"v2 two AUTHORITY TLVs":           {lenient, "one of them would be ignored"},
		"v2 AUTHORITY is no name":         {lenient, "2.2.2: it is what TLS calls server_name"},
		"v2 control character in the CN":  {lenient, "it goes to logs and to user names"},
		"v2 control character in ALPN":    {lenient, "it goes to logs"},
		"v2 control character in version": {lenient, "2.2.6: text, that goes to logs"},
		"v2 unique id of 129 bytes":       {lenient, "2.2.5: at most 128"},
		"v2 unspecified source":           {lenient, "no client has that address"},
		"v2 header of 4097 bytes":         {lenient, "our limit counts the sixteen fixed bytes, the library's does not"},
	}
	for name, raw := range inputs {
		h, err := Read(bytes.NewReader(raw), Limits{})
		_, _, _, oerr := oracle(raw)
		got := ""
		switch {
		case err == nil:
			got = disagreement(raw, h)
		case oerr == nil:
			got = lenient + ": " + err.Error()
		}
		want := differences[name]
		if want.kind == "" && got != "" || want.kind != "" && !strings.HasPrefix(got, want.kind) {
			t.Errorf("%s: %q, want %q (%s)", name, got, want.kind, want.why)
		}
	}
	for name := range differences {
		if inputs[name] == nil {
			t.Errorf("%s: no such input", name)
		}
	}
}
