package proxyheader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"testing"
)

// What holds for any bytes: no panic; an error keeps its promises; the verdict
// does not depend on how the bytes are split; nothing after an accepted header
// is read or asked for; the library, which is laxer, sees the same in it; and
// written again it reads as the same.
func checkAny(t *testing.T, raw []byte, lim Limits) *Header {
	t.Helper()
	whole := &tape{raw: raw}
	h, err := Read(whole, lim)
	split := 1
	if len(raw) > 1 {
		split = 1 + int(raw[len(raw)-1])%len(raw)
	}
	for _, step := range []func(int) int{oneByte, splitAt(split), func(int) int { return 7 }} {
		tp := &tape{raw: raw, step: step}
		h2, err2 := Read(tp, lim)
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(h, h2) {
			t.Fatalf("%+v %v, split %+v %v", h, err, h2, err2)
		}
		if err != nil {
			// What is no header is named after the bytes in hand.
			r, r2 := checkError(t, err).Reason, checkError(t, err2).Reason
			if r != r2 && !isHint(r) && !isHint(r2) {
				t.Fatalf("%v, split %v", err, err2)
			}
		} else if tp.pos != whole.pos || tp.asked > whole.pos {
			t.Fatalf("read %d, asked %d, in one piece %d", tp.pos, tp.asked, whole.pos)
		}
	}
	if err != nil {
		if h != nil {
			t.Fatal("a header and an error")
		}
		return nil
	}
	if whole.asked > whole.pos {
		t.Fatalf("asked for %d, header %d", whole.asked, whole.pos)
	}
	if !h.Local {
		if d := disagreement(raw[:whole.pos], h); d != "" {
			t.Fatalf("%+v: %s", h, d)
		}
	}
	again, err := Read(bytes.NewReader(encode(h)), lim)
	if err != nil {
		t.Fatalf("written again: %v", err)
	}
	if a, b := withoutCRC(h), withoutCRC(again); !reflect.DeepEqual(a, b) {
		t.Fatalf("written again %+v, was %+v", b, a)
	}
	return h
}

func isHint(r Reason) bool {
	return r == ReasonTLSClientHello || r == ReasonNATSClient || r == ReasonHTTP || r == ReasonNoHeader
}

// encode writes a header as a proxy would. A checksum is computed anew.
func encode(h *Header) []byte {
	family, name := byte(famTCP4), "TCP4"
	if h.Source.Addr().Is6() || h.Destination.Addr().Is6() {
		family, name = famTCP6, "TCP6"
	}
	if h.Version == 1 {
		if h.Local {
			return []byte("PROXY UNKNOWN\r\n")
		}
		src, dst := h.Source.Addr().String(), h.Destination.Addr().String()
		if name == "TCP6" {
			src, dst = h.Source.Addr().StringExpanded(), h.Destination.Addr().StringExpanded()
			if h.Source.Addr().Is4() {
				src = "::ffff:" + src
			}
			if h.Destination.Addr().Is4() {
				dst = "::ffff:" + dst
			}
		}
		return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", name, src, dst, h.Source.Port(), h.Destination.Port())
	}
	if h.Local {
		return v2(cmdLocal, 0)
	}
	var block []byte
	if family == famTCP4 {
		block = append(h.Source.Addr().AsSlice(), h.Destination.Addr().AsSlice()...)
	} else {
		src, dst := h.Source.Addr().As16(), h.Destination.Addr().As16()
		block = append(src[:], dst[:]...)
	}
	block = binary.BigEndian.AppendUint16(block, h.Source.Port())
	block = binary.BigEndian.AppendUint16(block, h.Destination.Port())
	for _, v := range h.TLVs {
		block = append(block, tlv(v.Type, string(v.Value))...)
	}
	return sealed(v2(cmdProxy, family, block))
}

// withoutCRC is the header with the value of its checksum left out, which
// changes when padding does.
func withoutCRC(h *Header) Header {
	c := *h
	c.TLVs = nil
	for _, v := range h.TLVs {
		if v.Type == 0x03 {
			v.Value = nil
		}
		c.TLVs = append(c.TLVs, v)
	}
	return c
}

func FuzzProxyProtoV1(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAny(t, data, Limits{})
		// Straight to the grammar.
		checkAny(t, append([]byte("PROXY "), data...), Limits{})
		checkAny(t, append(append([]byte("PROXY "), data...), "\r\n"...), Limits{})
	})
}

func FuzzProxyProtoV2(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		checkAny(t, data, Limits{})
		checkAny(t, append([]byte(v2Signature), data...), Limits{})
		// A small limit, a checksum asked for.
		checkAny(t, append([]byte(v2Signature), data...), Limits{MaxHeader: 64, CRC32C: CRCRequire})
	})
}

func FuzzProxyProtoTLVs(f *testing.F) {
	f.Fuzz(func(t *testing.T, area []byte) {
		if len(area) > 4000 {
			return
		}
		checkAny(t, v2(cmdProxy, famTCP4, client4, area), Limits{})
		checkAny(t, v2(cmdProxy, famTCP6, client6, area), Limits{})
		checkAny(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), area)), Limits{})
		h := checkAny(t, v2(cmdLocal, famTCP4, area), Limits{})
		if !h.Local {
			t.Fatal("LOCAL is not local")
		}
	})
}

// FuzzProxyProtoCRC32C puts the right checksum into a header and changes one
// bit: with a checksum required nothing but LOCAL, which uses nothing, passes.
func FuzzProxyProtoCRC32C(f *testing.F) {
	f.Fuzz(func(t *testing.T, area []byte, at uint16, bit uint8) {
		if len(area) > 4000 {
			return
		}
		lim := Limits{CRC32C: CRCRequire}
		raw := sealed(v2(cmdProxy, famTCP4, client4, tlv(0x03, "none"), area))
		if _, err := Read(bytes.NewReader(raw), lim); err != nil && checkError(t, err).Reason == ReasonCRCMismatch {
			t.Fatal(err)
		}
		checkAny(t, raw, lim)
		raw[int(at)%len(raw)] ^= 1 << (bit % 8)
		if h := checkAny(t, raw, lim); h != nil && !h.Local {
			t.Fatalf("bit %d of byte %d of %d changed, accepted: %+v", bit%8, int(at)%len(raw), len(raw), h)
		}
	})
}
