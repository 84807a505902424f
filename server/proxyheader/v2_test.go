package proxyheader

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// From the field, checksums included.
var (
	nlbHealthCheck = append(append([]byte(v2Signature), 0x20, 0x11, 0x00, 0x54),
		append(tlv(0x03, "\xbc\xe5\x95\x1f"), tlv(0x04, string(make([]byte, 74)))...)...)
	nlbEndpoint = v2(cmdProxy, famTCP4, addrBlock("172.31.7.113:51442", "172.31.10.31:80"),
		tlv(0x03, "\xe8\xd6\x89\x2d"), tlv(0xea, "\x01vpce-08d2bf15fac5001c9"), tlv(0x04, string(make([]byte, 36))))
)

func TestProxyProtoVectorNLBHealthCheck(t *testing.T) {
	if len(nlbHealthCheck) != 100 {
		t.Fatalf("%d bytes", len(nlbHealthCheck))
	}
	for _, policy := range []CRCPolicy{CRCVerify, CRCRequire} {
		h := mustRead(t, nlbHealthCheck, Limits{CRC32C: policy})
		if !reflect.DeepEqual(h, &Header{Version: 2, Local: true}) {
			t.Errorf("%+v", h)
		}
	}
}

func TestProxyProtoVectorNLBEndpoint(t *testing.T) {
	if len(nlbEndpoint) != 100 {
		t.Fatalf("%d bytes: %s", len(nlbEndpoint), hex.EncodeToString(nlbEndpoint))
	}
	h := mustRead(t, nlbEndpoint, Limits{CRC32C: CRCRequire})
	if h.Source != netip.MustParseAddrPort("172.31.7.113:51442") || h.Destination != netip.MustParseAddrPort("172.31.10.31:80") {
		t.Errorf("%+v", h)
	}
	if v, ok := h.TLV(0xea); !ok || string(v) != "\x01vpce-08d2bf15fac5001c9" {
		t.Errorf("%+v", h)
	}
	if _, ok := h.TLV(0x04); ok || len(h.TLVs) != 2 {
		t.Errorf("padding was kept: %+v", h)
	}
}

func TestProxyProtoVector211200(t *testing.T) {
	mustFail(t, v2(cmdProxy, 0x12), Limits{}, ReasonUnsupported)
}

func TestProxyProtoB1WholeSignatureThenVersion2(t *testing.T) {
	good := v2(cmdProxy, famTCP4, client4)
	for i := range len(v2Signature) {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		mustFail(t, bad, Limits{}, ReasonNoHeader)
	}
	for v := range 16 {
		if v == 2 {
			continue
		}
		for _, command := range []byte{0, 1} {
			mustFail(t, v2(byte(v)<<4|command, famTCP4, client4), Limits{}, ReasonUnsupported)
		}
	}
	// Known with the thirteenth byte.
	tp := &tape{raw: v2(0x11, famTCP4, client4), step: oneByte}
	Read(tp, Limits{})
	if tp.pos != atCommand+1 {
		t.Errorf("read %d bytes", tp.pos)
	}
}

func TestProxyProtoB2LocalThrowsAwayBlock(t *testing.T) {
	blocks := map[string][]byte{
		"nothing":          nil,
		"one byte":         {0x7f},
		"addresses":        client4,
		"short for family": client4[:5],
		"a bad TLV":        append(bytes.Clone(client4), 0x20, 0xff),
		"garbage":          []byte(strings.Repeat("\xff", 700)),
		"a wrong checksum": append(bytes.Clone(client4), tlv(0x03, "none")...),
		"an SSL TLV":       append(bytes.Clone(client4), sslTLV(7, 0, tlv(0x21, "TLSv1.3"))...),
	}
	for name, block := range blocks {
		for family := range 256 {
			raw := v2(cmdLocal, byte(family), block)
			h, err := Read(bytes.NewReader(raw), Limits{})
			if err != nil || !reflect.DeepEqual(h, &Header{Version: 2, Local: true}) {
				t.Fatalf("%s, family %#x: %+v %v", name, family, h, err)
			}
		}
		mustRead(t, v2(cmdLocal, 0, block), Limits{})
	}
}

func TestProxyProtoB3ProxyGivesTheAddresses(t *testing.T) {
	h := mustRead(t, v2(cmdProxy, famTCP4, client4), Limits{})
	want := &Header{Version: 2, Source: netip.MustParseAddrPort("203.0.113.7:51442"), Destination: netip.MustParseAddrPort("10.42.0.9:4221")}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%+v", h)
	}
	h = mustRead(t, v2(cmdProxy, famTCP6, client6), Limits{})
	want = &Header{Version: 2, Source: netip.MustParseAddrPort("[2001:db8::7]:51442"), Destination: netip.MustParseAddrPort("[2001:db8::9]:4221")}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%+v", h)
	}
	mustRead(t, v2(cmdProxy, famTCP4, addrBlock("1.2.3.4:0", "0.0.0.0:0")), Limits{})
}

func TestProxyProtoB4UnknownCommand(t *testing.T) {
	for command := 2; command < 16; command++ {
		mustFail(t, v2(0x20|byte(command), famTCP4, client4), Limits{}, ReasonUnsupported)
	}
}

func TestProxyProtoB5ProxyWithUnspec(t *testing.T) {
	for _, family := range []byte{0x00, 0x01, 0x02, 0x10, 0x20, 0x30} {
		mustFail(t, v2(cmdProxy, family, client6), Limits{}, ReasonUnsupported)
		mustFail(t, v2(cmdProxy, family), Limits{}, ReasonUnsupported)
	}
}

func TestProxyProtoB6UndefinedFamilyOrTransport(t *testing.T) {
	for family := range 256 {
		if family == famTCP4 || family == famTCP6 {
			continue
		}
		mustFail(t, v2(cmdProxy, byte(family), make([]byte, 300)), Limits{}, ReasonUnsupported)
	}
}

func TestProxyProtoB7UDPAndUnixWithProxy(t *testing.T) {
	mustFail(t, v2(cmdProxy, 0x12, client4), Limits{}, ReasonUnsupported)
	mustFail(t, v2(cmdProxy, 0x22, client6), Limits{}, ReasonUnsupported)
	mustFail(t, v2(cmdProxy, 0x31, make([]byte, 216)), Limits{}, ReasonUnsupported)
	mustFail(t, v2(cmdProxy, 0x32, make([]byte, 216)), Limits{}, ReasonUnsupported)
}

func TestProxyProtoB8SkipsExactlyTheAnnouncedLength(t *testing.T) {
	for _, n := range []int{0, 1, 2, 255, 256, 257, 600, 4080} {
		mustReadSome(t, v2(cmdLocal, famTCP6, make([]byte, n)))
	}
	for _, n := range []int{0, 1, 200, 230, 300, 1000} {
		mustReadSome(t, v2(cmdProxy, famTCP4, client4, tlv(0xe0, strings.Repeat("x", n))))
	}
}

// mustReadSome is mustRead where every split point would be too many.
func mustReadSome(t *testing.T, raw []byte) {
	t.Helper()
	for _, step := range []func(int) int{nil, oneByte, splitAt(13), splitAt(17)} {
		tp := &tape{raw: append(bytes.Clone(raw), "PING\r\n"...), step: step}
		if _, err := Read(tp, Limits{}); err != nil || tp.pos != len(raw) || tp.asked > len(raw) {
			t.Fatalf("%v, read %d, asked %d, header %d", err, tp.pos, tp.asked, len(raw))
		}
	}
}

func TestProxyProtoB9NoAddressBeforeTheWholeBlock(t *testing.T) {
	raw := v2(cmdProxy, famTCP4, client4, tlv(0xe0, "custom"))
	for n := fixedV2; n < len(raw); n++ {
		mustFail(t, raw[:n], Limits{}, ReasonTruncated)
	}
}

func TestProxyProtoB10SignatureOrPROXYElseDrop(t *testing.T) {
	for c := range 256 {
		if c == 'P' || c == '\r' {
			continue
		}
		tp := &tape{raw: []byte{byte(c), 'x'}, step: oneByte}
		if _, err := Read(tp, Limits{}); err == nil || tp.pos != 1 {
			t.Errorf("first byte %#x: %v after %d bytes", c, err, tp.pos)
		}
	}
}

func TestProxyProtoB11UnknownTypesAreSkippedAndKept(t *testing.T) {
	known := map[int]bool{0x01: true, 0x02: true, 0x03: true, 0x04: true, 0x05: true, 0x20: true, 0x30: true}
	for typ := range 256 {
		if known[typ] {
			continue
		}
		h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(byte(typ), "\x00\xff"), tlv(byte(typ), "")), Limits{})
		if !reflect.DeepEqual(h.TLVs, []TLV{{byte(typ), []byte("\x00\xff")}, {byte(typ), []byte{}}}) {
			t.Errorf("%#x: %+v", typ, h.TLVs)
		}
		if v, ok := h.TLV(byte(typ)); !ok || string(v) != "\x00\xff" {
			t.Errorf("%#x: the first is %q", typ, v)
		}
	}
	for sub := range 256 {
		if sub >= 0x21 && sub <= 0x28 {
			continue
		}
		h := mustRead(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(byte(sub), "\x00"), tlv(0x21, "TLSv1.3"), tlv(byte(sub), ""))), Limits{})
		if h.TLS.Version != "TLSv1.3" {
			t.Errorf("%#x: %+v", sub, h.TLS)
		}
	}
}

func TestProxyProtoB12ShortBlockOrTLVOverTheEnd(t *testing.T) {
	for n := range addrs4 {
		mustFail(t, v2(cmdProxy, famTCP4, client4[:n]), Limits{}, ReasonBadV2)
	}
	for n := range addrs6 {
		mustFail(t, v2(cmdProxy, famTCP6, client6[:n]), Limits{}, ReasonBadV2)
	}
	for _, area := range []string{"\xe0\x00\x01", "\xe0\x00\x02x", "\xe0\xff\xff", "\x04\x00\x01", "\xe0\x00\x00\xe0\x00\x05abcd", "\x20\x00\x06\x01\x00\x00\x00\x00"} {
		mustFail(t, v2(cmdProxy, famTCP4, client4, []byte(area)), Limits{}, ReasonBadTLV)
	}
	for _, sub := range []string{"\x21", "\x21\x00", "\x21\x00\x08TLSv1.3", "\x21\x00\x07TLSv1.3\x22", "\x99\x00\x01"} {
		mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, []byte(sub))), Limits{}, ReasonBadTLV)
	}
}

func TestProxyProtoC1CRC32C(t *testing.T) {
	good := haproxyLike()
	mustRead(t, good, Limits{CRC32C: CRCVerify})
	mustRead(t, good, Limits{CRC32C: CRCRequire})
	at := fixedV2 + addrs4 + tlvHead
	for i := fixedV2; i < len(good); i++ {
		if i >= at-tlvHead && i < at {
			continue // without its type or length it is no checksum
		}
		bad := bytes.Clone(good)
		bad[i] ^= 1
		_, err := Read(bytes.NewReader(bad), Limits{})
		if err == nil {
			t.Fatalf("byte %d changed, accepted", i)
		}
		if r := checkError(t, err).Reason; r != ReasonCRCMismatch && r != ReasonBadTLV {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	zero := bytes.Clone(good)
	clear(zero[at : at+4])
	mustFail(t, zero, Limits{}, ReasonCRCMismatch)
	// The checksum is judged before what it protects.
	mustFail(t, v2(cmdProxy, famTCP4, addrBlock("224.0.0.1:1", "1.2.3.4:2"), tlv(0x03, "none"), tlv(0x02, "\x00")), Limits{}, ReasonCRCMismatch)
	// It may stand anywhere, and over IPv6.
	mustRead(t, sealed(v2(cmdProxy, famTCP6, client6, tlv(0x04, "pad"), tlv(0xe0, "x"), tlv(0x03, "none"), tlv(0xe1, "y"))), Limits{CRC32C: CRCRequire})
}

func TestProxyProtoC1CRC32CHasFourBytes(t *testing.T) {
	for _, value := range []string{"", "\x00", "\x00\x00\x00", "\x00\x00\x00\x00\x00"} {
		mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0x03, value)), Limits{}, ReasonBadTLV)
	}
}

func TestProxyProtoC1CRC32CRequired(t *testing.T) {
	lim := Limits{CRC32C: CRCRequire}
	mustFail(t, v2(cmdProxy, famTCP4, client4), lim, ReasonCRCMissing)
	mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0xe0, "x")), lim, ReasonCRCMissing)
	// A checksum inside another TLV is none.
	mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0xe0, string(tlv(0x03, "none")))), lim, ReasonCRCMissing)
	mustFail(t, validHeaders["v1 TCP4"], lim, ReasonCRCMissing)
	mustFail(t, validHeaders["v1 UNKNOWN"], lim, ReasonCRCMissing)
	mustRead(t, v2(cmdLocal, 0), lim)
}

func TestProxyProtoC2NoopIsIgnored(t *testing.T) {
	plain := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0xe0, "x")), Limits{})
	padded := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x04, ""), tlv(0xe0, "x"), tlv(0x04, "\x00\xff\n"), tlv(0x04, "")), Limits{})
	if !reflect.DeepEqual(plain, padded) {
		t.Errorf("%+v, without padding %+v", padded, plain)
	}
	if h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x04, "")), Limits{}); h.TLVs != nil {
		t.Errorf("%+v", h)
	}
}

func TestProxyProtoC3UniqueIDIsOpaqueAndAtMost128Bytes(t *testing.T) {
	for _, id := range []string{"x", "\x00\x01\xff\n", strings.Repeat("\xfe", 128)} {
		h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x05, id)), Limits{})
		if string(h.UniqueID) != id {
			t.Errorf("%q, want %q", h.UniqueID, id)
		}
	}
	mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0x05, strings.Repeat("x", 129))), Limits{}, ReasonBadTLV)
}

func TestProxyProtoC4SSLTLV(t *testing.T) {
	h := mustRead(t, haproxyLike(), Limits{})
	want := &TLS{ClientTLS: true, CertConn: true, CertSess: true, Version: "TLSv1.3", Cipher: "TLS_AES_256_GCM_SHA384", ClientCN: "device-17"}
	if !reflect.DeepEqual(h.TLS, want) || h.ALPN != "nats" || h.SNI != "nats.example.com" || !strings.HasPrefix(string(h.UniqueID), "0A2A") {
		t.Errorf("%+v %+v", h, h.TLS)
	}
	// verify is in network order; the certificate is 0x28, not what 0x24 to
	// 0x27 say of the proxy's own.
	der := "\x30\x03\x02\x01\x00"
	h = mustRead(t, v2(cmdProxy, famTCP4, client4, sslTLV(3, 0x01020304,
		tlv(0x21, "TLSv1.2"), tlv(0x24, "RSA-SHA256"), tlv(0x25, "RSA2048"), tlv(0x26, "X25519"), tlv(0x27, "rsa_pss_rsae_sha256"),
		tlv(0x28, der), tlv(0x22, "Zoë, O=x"))), Limits{})
	want = &TLS{ClientTLS: true, CertConn: true, Verify: 0x01020304, Version: "TLSv1.2", ClientCN: "Zoë, O=x", ClientCert: []byte(der)}
	if !reflect.DeepEqual(h.TLS, want) {
		t.Errorf("%+v", h.TLS)
	}
}

func TestProxyProtoC4VersionComesWithTheSSLFlag(t *testing.T) {
	mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0)), Limits{}, ReasonBadTLV)
	mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x23, "X"))), Limits{}, ReasonBadTLV)
	mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, ""))), Limits{}, ReasonBadTLV)
	mustRead(t, v2(cmdProxy, famTCP4, client4, sslTLV(0, 0)), Limits{})
	for n := range sslHead {
		mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0x20, "\x01\x00\x00\x00\x00"[:n])), Limits{}, ReasonBadTLV)
	}
}

func TestProxyProtoC4WhatProvesTLS(t *testing.T) {
	var none *TLS
	if none.Proved() || none.CertProved() {
		t.Error("nil proves something")
	}
	for flags := range 256 {
		for _, verify := range []uint32{0, 1, 1 << 31} {
			h, err := Read(bytes.NewReader(v2(cmdProxy, famTCP4, client4, sslTLV(byte(flags), verify, tlv(0x21, "TLSv1.3")))), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			tls := flags&1 != 0
			cert := tls && flags&6 != 0 && verify == 0
			if h.TLS.Proved() != tls || h.TLS.CertProved() != cert {
				t.Errorf("flags %#x, verify %d: %v %v", flags, verify, h.TLS.Proved(), h.TLS.CertProved())
			}
		}
	}
}

// Rules beyond the text.

func TestProxyProtoBeyondTLVsEndAtTheBlocksEnd(t *testing.T) {
	for _, tail := range []string{"\x00", "\x00\x00", "\xe0\x00", "\x04"} {
		mustFail(t, v2(cmdProxy, famTCP4, client4, []byte(tail)), Limits{}, ReasonBadTLV)
		mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0xe0, "x"), []byte(tail)), Limits{}, ReasonBadTLV)
		mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(0, 0, []byte(tail))), Limits{}, ReasonBadTLV)
	}
}

func TestProxyProtoBeyondMappedAddressesAreIPv4(t *testing.T) {
	for _, name := range []string{"v1 TCP6 mapped", "v2 TCP6 mapped"} {
		h := mustRead(t, validHeaders[name], Limits{})
		if h.Source.Addr() != netip.MustParseAddr("203.0.113.7") || h.Destination.Addr() != netip.MustParseAddr("10.42.0.9") {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestProxyProtoBeyondSourceCanBeAClients(t *testing.T) {
	for _, bad := range []string{"0.0.0.0", "224.0.0.1", "239.255.255.255", "255.255.255.255", "::", "ff02::1", "ffff::1",
		"::ffff:0.0.0.0", "::ffff:224.0.0.1", "::ffff:255.255.255.255"} {
		family, v1family, dst := byte(famTCP4), "TCP4", "10.0.0.1"
		if strings.Contains(bad, ":") {
			family, v1family, dst = famTCP6, "TCP6", "2001:db8::1"
		}
		src, to := netip.MustParseAddr(bad), netip.MustParseAddr(dst)
		mustFail(t, v2(cmdProxy, family, addrBlock(netip.AddrPortFrom(src, 1).String(), netip.AddrPortFrom(to, 2).String())), Limits{}, ReasonBadAddress)
		mustFail(t, []byte("PROXY "+v1family+" "+bad+" "+dst+" 1 2\r\n"), Limits{}, ReasonBadAddress)
		// As a destination it is only told.
		mustRead(t, []byte("PROXY "+v1family+" "+dst+" "+bad+" 1 2\r\n"), Limits{})
	}
	// Loopback is an address like others here; that it never counts as local
	// is for those who ask.
	mustRead(t, []byte("PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"), Limits{})
}

func TestProxyProtoBeyondSecondTLVIsRefused(t *testing.T) {
	plain := sslTLV(0, 0)
	for name, raw := range map[string][]byte{
		"SSL":       v2(cmdProxy, famTCP4, client4, plain, plain),
		"AUTHORITY": v2(cmdProxy, famTCP4, client4, tlv(0x02, "a.example"), tlv(0xe0, ""), tlv(0x02, "a.example")),
		"CRC32C":    sealed(v2(cmdProxy, famTCP4, client4, tlv(0x03, "none"), tlv(0x03, "none"))),
		"version":   v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x21, "TLSv1.3"))),
		"CN":        v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x22, "a"), tlv(0x22, "b"))),
		"cipher":    v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x23, "a"), tlv(0x23, "b"))),
		"cert":      v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x28, "a"), tlv(0x28, "b"))),
	} {
		t.Run(name, func(t *testing.T) { mustFail(t, raw, Limits{}, ReasonBadTLV) })
	}
	// Of others the first counts; all are kept.
	h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x01, "h2"), tlv(0x01, "nats"), tlv(0x05, "a"), tlv(0x05, "b")), Limits{})
	if h.ALPN != "h2" || string(h.UniqueID) != "a" || len(h.TLVs) != 4 {
		t.Errorf("%+v", h)
	}
}

func TestProxyProtoBeyondControlCharactersAreRefused(t *testing.T) {
	for _, bad := range []string{"a\x00b", "\n", "a\rb", "\x1b[0m", "\x7f", "a\u0085b", "\u009bx", "\t"} {
		for _, part := range [][]byte{
			tlv(0x01, bad),
			tlv(0x02, bad),
			tlv(0x30, bad),
			sslTLV(1, 0, tlv(0x21, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x22, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x23, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x24, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x25, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x26, bad)),
			sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x27, bad)),
			sslTLV(0, 0, tlv(0x22, bad)),
		} {
			mustFail(t, v2(cmdProxy, famTCP4, client4, part), Limits{}, ReasonBadTLV)
		}
	}
	for _, bad := range []string{"\xff", "a\xc3", "\xed\xa0\x80"} { // no UTF-8
		mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x22, bad))), Limits{}, ReasonBadTLV)
	}
	for _, bad := range []string{"é", "\xff"} { // no ASCII
		mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, bad))), Limits{}, ReasonBadTLV)
		mustFail(t, v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x23, bad))), Limits{}, ReasonBadTLV)
	}
	if h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x01, "\xfe\xff")), Limits{}); h.ALPN != "\xfe\xff" {
		t.Errorf("ALPN is opaque: %q", h.ALPN)
	}
}

func TestProxyProtoBeyondAuthorityIsAHostName(t *testing.T) {
	label := strings.Repeat("a", 63)
	longest := label + "." + label + "." + label + "." + strings.Repeat("b", 61)
	for _, good := range []string{"nats.example.com", "localhost", "A-b.c", "x--y.z", "_nats._tcp.example", "10.0.0.1", "xn--bcher-kva.example", label, longest} {
		h := mustRead(t, v2(cmdProxy, famTCP4, client4, tlv(0x02, good)), Limits{})
		if h.SNI != good {
			t.Errorf("%q", h.SNI)
		}
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a-.b", "a b", "a:4222", "[::1]", "::1", "a/b", "*.a",
		"bücher.example", "a\x00", "a,b", "\xff", label + "a", longest + "b", strings.Repeat("a.", 200) + "a"} {
		mustFail(t, v2(cmdProxy, famTCP4, client4, tlv(0x02, bad)), Limits{}, ReasonBadTLV)
	}
}

// A second header is no part of the first: it is left unread, for the accept
// code to see and refuse.
func TestProxyProtoBeyondSecondHeaderIsLeftUnread(t *testing.T) {
	for _, first := range validHeaders {
		for _, second := range validHeaders {
			tp := &tape{raw: append(bytes.Clone(first), second...)}
			if _, err := Read(tp, Limits{}); err != nil || tp.asked > len(first) {
				t.Fatalf("%v, asked for %d of %d", err, tp.asked, len(first))
			}
		}
	}
}
