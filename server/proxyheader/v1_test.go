package proxyheader

import (
	"net/netip"
	"strings"
	"testing"
)

func TestProxyProtoT1ExactLine(t *testing.T) {
	h := mustRead(t, []byte("PROXY TCP4 203.0.113.7 10.42.0.9 51442 4221\r\n"), Limits{})
	if h.Version != 1 || h.Local || h.TLS != nil || h.TLVs != nil ||
		h.Source != netip.MustParseAddrPort("203.0.113.7:51442") ||
		h.Destination != netip.MustParseAddrPort("10.42.0.9:4221") {
		t.Fatalf("%+v", h)
	}
	for _, line := range []string{
		"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8  1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8\r\n",
		"PROXY TCP4 1.2.3.4\r\n",
		"PROXY TCP4\r\n",
		"PROXY TCP4 \r\n",
		"PROXY \r\n",
		"PROXY\r\n",
		"PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1\t2\r\n",
		"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\x00\r\n",
		"PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
	} {
		mustFail(t, []byte(line), Limits{}, ReasonBadV1)
	}
	_, err := Read(strings.NewReader("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), Limits{})
	if r := checkError(t, err).Reason; r != ReasonNoHeader {
		t.Error(err)
	}
	mustFail(t, []byte(" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), Limits{}, ReasonNoHeader)
}

func TestProxyProtoT2FamilyDecidesTheFormat(t *testing.T) {
	for text, want := range map[string]string{
		"TCP4 9.0.0.1 255.255.255.255":                     "9.0.0.1",
		"TCP6 2001:db8::7 ::":                              "2001:db8::7",
		"TCP6 2001:DB8:0:0:0:0:0:A ::1":                    "2001:db8::a",
		"TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 ::1": "2001:db8::7",
		"TCP6 ::1 ::1":                                     "::1",
		"TCP6 2001:db8:: ::1":                              "2001:db8::",
		"TCP6 ::ffff:192.0.2.1 ::1":                        "192.0.2.1",
		"TCP6 0000:0000:0000:0000:0000:ffff:192.0.2.1 0:0:0:0:0:ffff:c000:0202": "192.0.2.1",
	} {
		h := mustRead(t, []byte("PROXY "+text+" 1 2\r\n"), Limits{})
		if h.Source.Addr() != netip.MustParseAddr(want) {
			t.Errorf("%s: %v", text, h.Source)
		}
	}
	for _, text := range []string{
		"TCP4 01.2.3.4", "TCP4 1.2.3.04", "TCP4 1.2.3.004", "TCP4 1.2.3.256", "TCP4 1.2.3",
		"TCP4 1.2.3.", "TCP4 .1.2.3", "TCP4 1..2.3", "TCP4 1.2.3.4.5", "TCP4 1.2.3.-4", "TCP4 +1.2.3.4", "TCP4 0x1.2.3.4",
		"TCP4 1.2.3.0000004", "TCP4 2001:db8::7", "TCP4 ::ffff:1.2.3.4",
		"TCP6 1.2.3.4", "TCP6 1::2::3", "TCP6 :::", "TCP6 1:2:3:4:5:6:7", "TCP6 1:2:3:4:5:6:7:8:9",
		"TCP6 12345::1", "TCP6 g::1", "TCP6 fe80::1%eth0", "TCP6 fe80::1%1", "TCP6 [::1]", "TCP6 :1:2:3:4:5:6:7",
		"TCP6 ::1.2.3", "TCP6 ::1.2.3.04",
	} {
		family, _, _ := strings.Cut(text, " ")
		good := map[string]string{"TCP4": "9.9.9.9", "TCP6": "2001:db8::1"}[family]
		mustFail(t, []byte("PROXY "+text+" "+good+" 1 2\r\n"), Limits{}, ReasonBadV1)
		bad := text[len(family)+1:]
		mustFail(t, []byte("PROXY "+family+" "+good+" "+bad+" 1 2\r\n"), Limits{}, ReasonBadV1)
	}
}

func TestProxyProtoT3PortsWithoutLeadingZeros(t *testing.T) {
	for text, want := range map[string]uint16{"0": 0, "1": 1, "80": 80, "9999": 9999, "65535": 65535} {
		h := mustRead(t, []byte("PROXY TCP4 1.2.3.4 5.6.7.8 "+text+" "+text+"\r\n"), Limits{})
		if h.Source.Port() != want || h.Destination.Port() != want {
			t.Errorf("%s: %+v", text, h)
		}
	}
	for _, text := range []string{"00", "01", "080", "00000", "+1", "-1", "-0", "65536", "99999", "100000", "0x50", "1e3", "http", "8 0", "1_0", ""} {
		mustFail(t, []byte("PROXY TCP4 1.2.3.4 5.6.7.8 "+text+" 2\r\n"), Limits{}, ReasonBadV1)
		mustFail(t, []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 "+text+"\r\n"), Limits{}, ReasonBadV1)
		mustFail(t, []byte("PROXY TCP6 ::1 ::1 "+text+" 2\r\n"), Limits{}, ReasonBadV1)
	}
}

func TestProxyProtoT4LongestLines(t *testing.T) {
	for size, line := range map[int]string{
		// The worst case of the text has sources of all ones, which are
		// broadcast and multicast; these are as long.
		56:  "PROXY TCP4 203.113.113.113 255.255.255.255 65535 65535\r\n",
		104: "PROXY TCP6 2001:0db8:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		15:  "PROXY UNKNOWN\r\n",
		107: "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
	} {
		if len(line) != size {
			t.Fatalf("%d bytes, want %d: %q", len(line), size, line)
		}
		mustRead(t, []byte(line), Limits{})
	}
}

func TestProxyProtoT5CRLFWithin107Bytes(t *testing.T) {
	start := "PROXY UNKNOWN "
	fits := start + strings.Repeat("x", maxLine-len(start)-2) + "\r\n"
	mustRead(t, []byte(fits), Limits{})

	for _, line := range []string{
		start + strings.Repeat("x", maxLine-len(start)-1) + "\r\n",
		start + strings.Repeat("x", maxLine-len(start)) + "\r\n",
		start + strings.Repeat("x", 5000),
	} {
		for _, step := range []func(int) int{nil, oneByte} {
			tp := &tape{raw: []byte(line), step: step}
			_, err := Read(tp, Limits{})
			if err == nil || checkError(t, err).Reason != ReasonBadV1 {
				t.Fatalf("%v for %q", err, line)
			}
			if tp.asked > maxLine {
				t.Fatalf("asked for byte %d", tp.asked)
			}
		}
	}
	// Not decoded before CRLF is there: an address that is bad only as a whole
	// is not an address yet.
	mustFail(t, []byte("PROXY TCP4 1.2.3.999 5.6.7.8 1 2\r"), Limits{}, ReasonTruncated)
}

func TestProxyProtoT6LoneCROrLF(t *testing.T) {
	for _, start := range []string{
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2", "PROXY TCP6 ::1 ::1 1 2", "PROXY UNKNOWN", "PROXY UNKNOWN anything",
	} {
		for _, end := range []string{"\n", "\rX", "\r\r\n", "\n\r", "\nPING\r\n", "\rPING\r\n"} {
			mustFail(t, []byte(start+end), Limits{}, ReasonBadV1)
		}
		mustFail(t, []byte(start+"\r"), Limits{}, ReasonTruncated)
	}
}

func TestProxyProtoT7Unknown(t *testing.T) {
	for _, rest := range []string{
		"", " ", "  ", " 1.2.3.4 5.6.7.8 1 2", " TCP4 no matter", " \x00\xff\x16\x03", " é",
		" ffff::1 ffff::2 65535 65535",
	} {
		h := mustRead(t, []byte("PROXY UNKNOWN"+rest+"\r\n"), Limits{})
		if h.Version != 1 || !h.Local || h.Source.IsValid() || h.Destination.IsValid() {
			t.Errorf("%q: %+v", rest, h)
		}
	}
	for _, rest := range []string{"X", "\t", "4", "-"} {
		mustFail(t, []byte("PROXY UNKNOWN"+rest+"\r\n"), Limits{}, ReasonBadV1)
	}
}

func TestProxyProtoT8AbortsAsEarlyAsPossible(t *testing.T) {
	// The last byte of each is the one that decides: with it the header fails,
	// without it more is waited for.
	for _, text := range []string{
		"X", "PI", "PROX ", "PROXY\t", "PROXY X", "PROXY TCP5", "PROXY TCP4\r", "PROXY UNKNOWNS",
		"PROXY TCP4  ", "PROXY TCP4 x", "PROXY TCP4 1.2.3 ", "PROXY TCP4 1.2.3.4.", "PROXY TCP4 1.2.3.4\r",
		"PROXY TCP4 1.2.3.4 5.6.7.8 01", "PROXY TCP4 1.2.3.4 5.6.7.8 65536", "PROXY TCP4 1.2.3.4 5.6.7.8 123456",
		"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX", "PROXY TCP6 1 ", "PROXY TCP6 fe80::1%",
	} {
		raw := []byte(text)
		tp := &tape{raw: append(raw, strings.Repeat("y", 200)...), step: oneByte}
		_, err := Read(tp, Limits{})
		if err == nil || tp.pos != len(raw) {
			t.Errorf("%q: %v after %d bytes", text, err, tp.pos)
		}
		_, err = Read(&tape{raw: raw[:len(raw)-1]}, Limits{})
		if r := checkError(t, err).Reason; r != ReasonTruncated && r != ReasonClosed {
			t.Errorf("%q fails before its last byte: %v", text, err)
		}
	}
}
