package proxyheader

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// vectors: short names for building headers.

const (
	cmdLocal = 0x20
	cmdProxy = 0x21
	famTCP4  = 0x11
	famTCP6  = 0x21
)

var (
	client4 = addrBlock("203.0.113.7:51442", "10.42.0.9:4221")
	client6 = addrBlock("[2001:db8::7]:51442", "[2001:db8::9]:4221")
)

func addrBlock(src, dst string) []byte {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	b := append(s.Addr().AsSlice(), d.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, s.Port())
	return binary.BigEndian.AppendUint16(b, d.Port())
}

func v2(command, family byte, parts ...[]byte) []byte {
	var block []byte
	for _, p := range parts {
		block = append(block, p...)
	}
	b := append([]byte(v2Signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(block)))
	return append(b, block...)
}

func tlv(typ byte, value string) []byte {
	b := binary.BigEndian.AppendUint16([]byte{typ}, uint16(len(value)))
	return append(b, value...)
}

func sslTLV(flags byte, verify uint32, subs ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{flags}, verify)
	for _, s := range subs {
		b = append(b, s...)
	}
	return tlv(0x20, string(b))
}

// sealed puts the right checksum in the first CRC32C TLV after the addresses.
func sealed(header []byte) []byte {
	area := fixedV2 + addrs4
	if header[atFamily] == famTCP6 {
		area = fixedV2 + addrs6
	}
	for at := area; at+tlvHead <= len(header); {
		n := int(binary.BigEndian.Uint16(header[at+1:]))
		if header[at] == 0x03 && n == 4 && at+7 <= len(header) {
			value := header[at+3 : at+7]
			clear(value)
			binary.BigEndian.PutUint32(value, crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli)))
			return header
		}
		at += tlvHead + n
	}
	return header
}

// tape is a reader of raw that gives at most step(i) bytes at its i-th call, and
// knows how far it was read and how far it was asked.
type tape struct {
	raw   []byte
	step  func(call int) int
	calls int
	pos   int
	asked int // the furthest position that a call could have reached
	most  int // the largest buffer it was given
}

func (t *tape) Read(p []byte) (int, error) {
	t.asked = max(t.asked, t.pos+len(p))
	t.most = max(t.most, len(p))
	if t.pos == len(t.raw) {
		return 0, io.EOF
	}
	n := len(p)
	if t.step != nil {
		n = min(n, max(1, t.step(t.calls)))
	}
	t.calls++
	n = copy(p[:n], t.raw[t.pos:])
	t.pos += n
	return n, nil
}

func oneByte(int) int { return 1 }

// splitAt gives n bytes first, then all that is asked for.
func splitAt(n int) func(int) int {
	return func(call int) int {
		if call == 0 {
			return n
		}
		return 1 << 20
	}
}

// mustRead reads a valid header followed by other data in one piece, at every
// split point and one byte at a time, and checks each time that the result is
// the same and that nothing after the header was read, nor asked for.
func mustRead(t *testing.T, raw []byte, lim Limits) *Header {
	t.Helper()
	all := append(append([]byte(nil), raw...), "CONNECT {}\r\nPING\r\n"...)
	var first *Header
	steps := []func(int) int{nil, oneByte, func(int) int { return 3 }}
	for n := 1; n < len(raw); n++ {
		steps = append(steps, splitAt(n))
	}
	for i, step := range steps {
		tp := &tape{raw: all, step: step}
		h, err := Read(tp, lim)
		if err != nil {
			t.Fatalf("way %d: %v\nheader %q", i, err, raw)
		}
		if tp.pos != len(raw) {
			t.Fatalf("way %d: read %d bytes of a header of %d", i, tp.pos, len(raw))
		}
		if tp.asked > len(raw) {
			t.Fatalf("way %d: asked for byte %d of a header of %d", i, tp.asked, len(raw))
		}
		if first == nil {
			first = h
		} else if !reflect.DeepEqual(first, h) {
			t.Fatalf("way %d: %+v, in one piece %+v", i, h, first)
		}
	}
	return first
}

// mustFail reads bytes that are no header, in one piece and one byte at a time,
// and wants that reason.
func mustFail(t *testing.T, raw []byte, lim Limits, reason Reason) *Error {
	t.Helper()
	var first *Error
	for _, step := range []func(int) int{nil, oneByte} {
		h, err := Read(&tape{raw: raw, step: step}, lim)
		if err == nil {
			t.Fatalf("accepted as %+v, want %s: %q", h, reason, raw)
		}
		e := checkError(t, err)
		if e.Reason != reason {
			t.Fatalf("reason %s (%v), want %s: %q", e.Reason, err, reason, raw)
		}
		if h != nil {
			t.Fatalf("a header and an error: %q", raw)
		}
		if first == nil {
			first = e
		}
	}
	return first
}

// checkError checks what each error promises.
func checkError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no *Error", err)
	}
	known := false
	for _, r := range Reasons() {
		known = known || r == e.Reason
	}
	if !known {
		t.Fatalf("reason %q is not listed", e.Reason)
	}
	text := e.Error()
	if len(text) > maxErrorText || !isPrintable([]byte(text)) || !strings.Contains(text, string(e.Reason)) {
		t.Fatalf("error text %q", text)
	}
	return e
}

// haproxyLike is what HAProxy sends with all its options on.
func haproxyLike() []byte {
	return sealed(v2(cmdProxy, famTCP4, client4,
		tlv(0x03, "\x00\x00\x00\x00"),
		tlv(0x01, "nats"),
		tlv(0x02, "nats.example.com"),
		tlv(0x05, "0A2A0009:1E61_0A2A0007:107D_65A1_0001"),
		sslTLV(0x07, 0,
			tlv(0x21, "TLSv1.3"),
			tlv(0x22, "device-17"),
			tlv(0x25, "RSA2048"),
			tlv(0x24, "RSA-SHA256"),
			tlv(0x23, "TLS_AES_256_GCM_SHA384"))))
}
