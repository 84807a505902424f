package proxyheader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/pires/go-proxyproto"
)

const (
	tlvHead     = 3 // type, length
	sslHead     = 5 // client flags, verify
	maxUniqueID = 128

	flagTLS      = 0x01
	flagCertConn = 0x02
	flagCertSess = 0x04
)

// vector is one TLV of an area, and where its value starts there.
type vector struct {
	typ   proxyproto.PP2Type
	value []byte
	at    int
}

// next cuts the TLV at an offset. It must lie within the area.
func next(area []byte, at int) (vector, error) {
	rest := area[at:]
	if len(rest) < tlvHead {
		return vector{}, fail(ReasonBadTLV, "2.2", fmt.Sprintf("%d bytes after the last TLV", len(rest)))
	}
	typ := proxyproto.PP2Type(rest[0])
	length := int(binary.BigEndian.Uint16(rest[1:]))
	rest = rest[tlvHead:]
	if length > len(rest) {
		return vector{}, badTLV(typ, "2.2", fmt.Sprintf("of %d bytes runs over the end, %d bytes away", length, len(rest)))
	}
	return vector{typ, rest[:length:length], at + tlvHead}, nil
}

// after is where the next TLV starts.
func (v *vector) after() int { return v.at + len(v.value) }

func badTLV(typ proxyproto.PP2Type, section, what string) *Error {
	return fail(ReasonBadTLV, section, fmt.Sprintf("TLV %#02x %s", byte(typ), what))
}

// frame walks an area of TLVs to its exact end, before any value is looked at.
// It returns how many there are, padding aside, and where the checksum is, -1
// for nowhere.
func frame(area []byte) (count, crc int, err error) {
	crc = -1
	for at := 0; at < len(area); {
		v, err := next(area, at)
		if err != nil {
			return 0, -1, err
		}
		at = v.after()
		switch v.typ {
		case proxyproto.PP2_TYPE_NOOP:
			continue
		case proxyproto.PP2_TYPE_CRC32C:
			if crc >= 0 {
				return 0, -1, badTLV(v.typ, "2.2.3", "is there twice")
			}
			if len(v.value) != 4 {
				return 0, -1, badTLV(v.typ, "2.2.3", "has not 4 bytes")
			}
			crc = v.at
		}
		count++
	}
	return count, crc, nil
}

// takeTLVs fills the header from an area that frame accepted, with count TLVs.
// It works on a copy of the area, in which the values then stay.
func (h *Header) takeTLVs(area []byte, count int) error {
	if count == 0 {
		return nil
	}
	area = bytes.Clone(area)
	h.TLVs = make([]TLV, 0, count)
	var seen types
	for at := 0; at < len(area); {
		v, err := next(area, at)
		if err != nil {
			return err
		}
		at = v.after()
		again := seen.add(v.typ)
		switch v.typ {
		case proxyproto.PP2_TYPE_NOOP:
			continue
		case proxyproto.PP2_TYPE_ALPN:
			if hasControl(v.value) {
				return badTLV(v.typ, "2.2.1", "with a control character: "+quote(v.value))
			}
			if !again {
				h.ALPN = string(v.value)
			}
		case proxyproto.PP2_TYPE_AUTHORITY:
			if again {
				return badTLV(v.typ, "2.2.2", "is there twice")
			}
			if !isHostName(v.value) {
				return badTLV(v.typ, "2.2.2", "is no host name: "+quote(v.value))
			}
			h.SNI = string(v.value)
		case proxyproto.PP2_TYPE_UNIQUE_ID:
			if len(v.value) > maxUniqueID {
				return badTLV(v.typ, "2.2.5", fmt.Sprintf("has %d bytes, more than 128", len(v.value)))
			}
			if !again {
				h.UniqueID = v.value
			}
		case proxyproto.PP2_TYPE_SSL:
			if again {
				return badTLV(v.typ, "2.2.6", "is there twice")
			}
			if h.TLS, err = readTLS(v.value); err != nil {
				return err
			}
		case proxyproto.PP2_TYPE_NETNS:
			if !isPrintable(v.value) {
				return badTLV(v.typ, "2.2.7", "is no printable ASCII: "+quote(v.value))
			}
		}
		h.TLVs = append(h.TLVs, TLV{byte(v.typ), v.value})
	}
	return nil
}

// readTLS reads the value of an SSL TLV (section 2.2.6). A sub-TLV that is used
// may be there once: two names for one client would be none.
func readTLS(value []byte) (*TLS, error) {
	const section = "2.2.6"
	if len(value) < sslHead {
		return nil, badTLV(proxyproto.PP2_TYPE_SSL, section, "is too short")
	}
	flags := value[0]
	t := &TLS{
		ClientTLS: flags&flagTLS != 0,
		CertConn:  flags&flagCertConn != 0,
		CertSess:  flags&flagCertSess != 0,
		Verify:    binary.BigEndian.Uint32(value[1:]),
	}
	var seen types
	for at := sslHead; at < len(value); {
		v, err := next(value, at)
		if err != nil {
			return nil, err
		}
		at = v.after()
		again := seen.add(v.typ)
		ascii := false
		switch v.typ {
		case proxyproto.PP2_SUBTYPE_SSL_VERSION:
			t.Version, ascii = string(v.value), true
		case proxyproto.PP2_SUBTYPE_SSL_CIPHER:
			t.Cipher, ascii = string(v.value), true
		case proxyproto.PP2_SUBTYPE_SSL_CN:
			if !utf8.Valid(v.value) || hasControl(v.value) {
				return nil, badTLV(v.typ, section, "is no plain UTF-8: "+quote(v.value))
			}
			t.ClientCN = string(v.value)
		case proxyproto.PP2_SUBTYPE_SSL_CLIENT_CERT:
			t.ClientCert = v.value
		case proxyproto.PP2_SUBTYPE_SSL_SIG_ALG, proxyproto.PP2_SUBTYPE_SSL_KEY_ALG,
			proxyproto.PP2_SUBTYPE_SSL_GROUP, proxyproto.PP2_SUBTYPE_SSL_SIG_SCHEME:
			// The proxy's own certificate and key exchange: text, not used.
			if !isPrintable(v.value) {
				return nil, badTLV(v.typ, section, "is no printable ASCII: "+quote(v.value))
			}
			continue
		default:
			continue
		}
		switch {
		case again:
			return nil, badTLV(v.typ, section, "is there twice")
		case len(v.value) == 0:
			return nil, badTLV(v.typ, section, "is empty")
		case ascii && !isPrintable(v.value):
			return nil, badTLV(v.typ, section, "is no printable ASCII: "+quote(v.value))
		}
	}
	if t.ClientTLS && t.Version == "" {
		return nil, badTLV(proxyproto.PP2_TYPE_SSL, section, "has the client flag and no version")
	}
	return t, nil
}

// types is a set of TLV types.
type types [4]uint64

// add adds a type and reports whether it was there.
func (t *types) add(typ proxyproto.PP2Type) bool {
	word, bit := &t[typ/64], uint64(1)<<(typ%64)
	again := *word&bit != 0
	*word |= bit
	return again
}

// hasControl finds control characters, those beyond ASCII too. Bytes that are
// no UTF-8 are none.
func hasControl(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if unicode.IsControl(r) {
			return true
		}
		b = b[n:]
	}
	return false
}

func isPrintable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// isHostName: labels of letters, digits, '-' and '_', as TLS carries them:
// ASCII, no dot at the end.
func isHostName(b []byte) bool {
	if len(b) == 0 || len(b) > 253 {
		return false
	}
	label := 0
	for i, c := range b {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_':
		case c == '-':
			if label == 0 || i == len(b)-1 || b[i+1] == '.' {
				return false
			}
		case c == '.':
			if label == 0 || i == len(b)-1 {
				return false
			}
			label = 0
			continue
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	return true
}
