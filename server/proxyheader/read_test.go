package proxyheader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// validHeaders is one of each kind, as edges send them.
var validHeaders = map[string][]byte{
	"v1 TCP4":          []byte("PROXY TCP4 203.0.113.7 10.42.0.9 51442 4221\r\n"),
	"v1 TCP4 shortest": []byte("PROXY TCP4 1.0.0.0 0.0.0.0 0 0\r\n"),
	"v1 TCP6":          []byte("PROXY TCP6 2001:db8::7 2001:db8::9 51442 4221\r\n"),
	"v1 TCP6 shortest": []byte("PROXY TCP6 ::1 :: 0 0\r\n"),
	"v1 TCP6 mapped":   []byte("PROXY TCP6 ::ffff:203.0.113.7 ::ffff:10.42.0.9 51442 4221\r\n"),
	"v1 UNKNOWN":       []byte("PROXY UNKNOWN\r\n"),
	"v1 UNKNOWN long":  []byte("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"),
	"v2 TCP4":          v2(cmdProxy, famTCP4, client4),
	"v2 TCP6":          v2(cmdProxy, famTCP6, client6),
	"v2 TCP6 mapped":   v2(cmdProxy, famTCP6, addrBlock("[::ffff:203.0.113.7]:1", "[::ffff:10.42.0.9]:2")),
	"v2 HAProxy":       haproxyLike(),
	"v2 TLS":           v2(cmdProxy, famTCP6, client6, sslTLV(1, 1, tlv(0x21, "TLSv1.2"))),
	"v2 SSL, no TLS":   v2(cmdProxy, famTCP4, client4, sslTLV(0, 0)),
	"v2 custom":        v2(cmdProxy, famTCP4, client4, tlv(0xe0, "a"), tlv(0x04, "pad"), tlv(0xe0, "b"), tlv(0xff, "")),
	"v2 long":          v2(cmdProxy, famTCP4, client4, tlv(0xe1, strings.Repeat("c", 1500))),
	"v2 LOCAL":         v2(cmdLocal, 0),
	"v2 LOCAL block":   v2(cmdLocal, famTCP4, client4, tlv(0xe0, "x")),
	"v2 LOCAL long":    v2(cmdLocal, 0, make([]byte, 1000)),
	"v2 NLB check":     nlbHealthCheck,
	"v2 NLB endpoint":  nlbEndpoint,
}

func TestProxyProtoG1ReadsBothVersions(t *testing.T) {
	for name, raw := range validHeaders {
		h, err := Read(bytes.NewReader(raw), Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := 1
		if strings.HasPrefix(name, "v2") {
			want = 2
		}
		if h.Version != want || h.Local == h.Source.IsValid() || h.Local == h.Destination.IsValid() {
			t.Errorf("%s: %+v", name, h)
		}
	}
}

func TestProxyProtoG2ReadsNotAByteBeyond(t *testing.T) {
	for name, raw := range validHeaders {
		tp := &tape{raw: append(append([]byte(nil), raw...), "CONNECT {}\r\n"...)}
		if _, err := Read(tp, Limits{}); err != nil || tp.pos != len(raw) || tp.asked > len(raw) {
			t.Errorf("%s: %v, read %d, asked %d, header %d", name, err, tp.pos, tp.asked, len(raw))
		}
	}
}

func TestProxyProtoG2NoHeaderBeforeItIsComplete(t *testing.T) {
	for name, raw := range validHeaders {
		for n := range raw {
			want := ReasonTruncated
			if n == 0 {
				want = ReasonClosed
			}
			h, err := Read(bytes.NewReader(raw[:n]), Limits{})
			if err == nil || h != nil {
				t.Fatalf("%s: %d of %d bytes accepted", name, n, len(raw))
			}
			e := checkError(t, err)
			if e.Reason != want || !errors.Is(err, io.EOF) {
				t.Fatalf("%s: %d of %d bytes: %v", name, n, len(raw), err)
			}
		}
	}
}

func TestProxyProtoG3SilentAndLateAreToldApart(t *testing.T) {
	for name, want := range map[string]Reason{"": ReasonSilent, "P": ReasonLate, "PROXY TCP4 1": ReasonLate, v2Signature: ReasonLate} {
		r := io.MultiReader(strings.NewReader(name), iotest.ErrReader(fmt.Errorf("read: %w", os.ErrDeadlineExceeded)))
		_, err := Read(r, Limits{})
		if checkError(t, err).Reason != want || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The deadline is the caller's, set once: a peer that sends a byte now and then
// does not move it.
func TestProxyProtoG3DrippingDoesNotExtendTheDeadline(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	defer client.Close()
	go func() {
		for _, c := range validHeaders["v2 HAProxy"] {
			if _, err := client.Write([]byte{c}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	start := time.Now()
	server.SetReadDeadline(start.Add(100 * time.Millisecond))
	_, err := Read(server, Limits{})
	if e := checkError(t, err); e.Reason != ReasonLate {
		t.Fatal(err)
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("%v is no timeout", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Fatalf("took %v", d)
	}
}

func TestProxyProtoG4NothingIsGuessed(t *testing.T) {
	for text, want := range map[string]Reason{
		"\x16\x03\x01\x02\x00\x01\x00":    ReasonTLSClientHello,
		"\x16\x03\x03":                    ReasonTLSClientHello,
		"\x16":                            ReasonTLSClientHello,
		"\x16\x02":                        ReasonNoHeader,
		"CONNECT {\"verbose\":false}\r\n": ReasonNATSClient,
		"connect {}\r\n":                  ReasonNATSClient,
		"CONNECT\t {":                     ReasonNATSClient,
		"CONN":                            ReasonNATSClient,
		"PING\r\n":                        ReasonNATSClient,
		"ping\r\n":                        ReasonNATSClient,
		"PONG\r\n":                        ReasonNATSClient,
		"SUB a 1\r\n":                     ReasonNATSClient,
		"UNSUB 1\r\n":                     ReasonNATSClient,
		"PUB a 0\r\n\r\n":                 ReasonNATSClient,
		"HPUB a 1 1\r\n":                  ReasonNATSClient,
		"GET / HTTP/1.1\r\n":              ReasonHTTP,
		"POST /x HTTP/1.1\r\n":            ReasonHTTP,
		"HEAD / HTTP/1.0\r\n":             ReasonHTTP,
		"PUT / HTTP/1.1\r\n":              ReasonHTTP,
		"OPTIONS * HTTP/1.1\r\n":          ReasonHTTP,
		"CONNECT host:443 HTTP/1.1":       ReasonHTTP,
		"PRI * HTTP/2.0\r\n":              ReasonHTTP,
		"PUBLISH":                         ReasonNoHeader,
		"hello":                           ReasonNoHeader,
		"\x00":                            ReasonNoHeader,
		"\r\n\r\nx":                       ReasonNoHeader,
		"\x10\x10\x00\x04MQTT\x04":        ReasonNoHeader,
		"INFO {}\r\n":                     ReasonNoHeader,
		"SSH-2.0-x\r\n":                   ReasonNoHeader,
		strings.Replace(v2Signature, "Q", "R", 1): ReasonNoHeader,
	} {
		// In one piece: a byte at a time may decide earlier, on less.
		_, err := Read(strings.NewReader(text), Limits{})
		if err == nil {
			t.Fatalf("%q accepted", text)
		}
		if e := checkError(t, err); e.Reason != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestProxyProtoG6EverySplitPointAndOneByteAtATime(t *testing.T) {
	for name, raw := range validHeaders {
		t.Run(name, func(t *testing.T) { mustRead(t, raw, Limits{}) })
	}
}

func TestProxyProtoG6AnyReader(t *testing.T) {
	for name, raw := range validHeaders {
		whole, err := Read(bytes.NewReader(raw), Limits{})
		if err != nil {
			t.Fatal(name, err)
		}
		for kind, r := range map[string]io.Reader{
			"one byte":      iotest.OneByteReader(bytes.NewReader(raw)),
			"half":          iotest.HalfReader(bytes.NewReader(raw)),
			"data with EOF": iotest.DataErrReader(bytes.NewReader(raw)),
			"empty reads":   &hesitant{r: iotest.OneByteReader(bytes.NewReader(raw))},
		} {
			h, err := Read(r, Limits{})
			if err != nil || !reflect.DeepEqual(h, whole) {
				t.Errorf("%s, %s: %v %v", name, kind, h, err)
			}
		}
	}
	_, err := Read(&hesitant{r: nil}, Limits{})
	if !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

// hesitant returns nothing each other time; always, without r.
type hesitant struct {
	r    io.Reader
	next bool
}

func (h *hesitant) Read(p []byte) (int, error) {
	h.next = !h.next
	if h.next || h.r == nil {
		return 0, nil
	}
	return h.r.Read(p)
}

func TestProxyProtoB10DecidesWhenTheBytesArrive(t *testing.T) {
	for _, text := range []string{"PING\r\n", "x", "\x16\x03\x01", "CONNECT {}\r\n", "\r\n\r\n\x00\r\nX"} {
		server, client := net.Pipe() // the client stays open and sends no more
		go client.Write([]byte(text))
		done := make(chan error, 1)
		go func() {
			_, err := Read(server, Limits{})
			done <- err
		}()
		select {
		case err := <-done:
			checkError(t, err)
		case <-time.After(5 * time.Second):
			t.Errorf("%q: waits for more", text)
		}
		client.Close()
		server.Close()
	}
}

func TestProxyProtoResetIsLikeClosed(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for before, want := range map[string]Reason{"": ReasonClosed, "PROXY ": ReasonTruncated} {
		_, err := Read(io.MultiReader(strings.NewReader(before), iotest.ErrReader(reset)), Limits{})
		if e := checkError(t, err); e.Reason != want || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%q: %v", before, err)
		}
	}
}

// An announced length makes nothing grow: only bytes that came do.
func TestProxyProtoBufferGrowsWithWhatArrives(t *testing.T) {
	for _, command := range []byte{cmdProxy, cmdLocal} {
		raw := v2(command, famTCP4, client4, tlv(0xe0, strings.Repeat("x", 4000)))
		for _, n := range []int{fixedV2, 255, 256, 257, 1000, len(raw)} {
			tp := &tape{raw: raw[:n]}
			Read(tp, Limits{})
			if most := max(startBuffer, 2*n); tp.most > most {
				t.Errorf("command %#x: %d bytes came, a buffer of %d was given", command, n, tp.most)
			}
		}
	}
}

func TestProxyProtoMaxHeader(t *testing.T) {
	fits := v2(cmdProxy, famTCP4, client4, tlv(0xe0, strings.Repeat("x", DefaultMaxHeader-fixedV2-addrs4-tlvHead)))
	more := v2(cmdProxy, famTCP4, client4, tlv(0xe0, strings.Repeat("x", DefaultMaxHeader-fixedV2-addrs4-tlvHead+1)))
	biggest := v2(cmdProxy, famTCP4, client4, tlv(0xe0, strings.Repeat("x", 65535-addrs4-tlvHead)))
	for _, zero := range []int{0, -1} {
		if _, err := Read(bytes.NewReader(fits), Limits{MaxHeader: zero}); err != nil {
			t.Error(err)
		}
		mustFail(t, more, Limits{MaxHeader: zero}, ReasonTooLong)
	}
	if _, err := Read(bytes.NewReader(more), Limits{MaxHeader: DefaultMaxHeader + 1}); err != nil {
		t.Error(err)
	}
	if h, err := Read(bytes.NewReader(biggest), Limits{MaxHeader: 1 << 20}); err != nil || len(h.TLVs) != 1 {
		t.Error(err)
	}
	plain := v2(cmdProxy, famTCP4, client4)
	mustRead(t, plain, Limits{MaxHeader: len(plain)})
	mustFail(t, plain, Limits{MaxHeader: len(plain) - 1}, ReasonTooLong)
	mustFail(t, v2(cmdLocal, 0, make([]byte, 100)), Limits{MaxHeader: 115}, ReasonTooLong)
	mustRead(t, v2(cmdLocal, 0), Limits{MaxHeader: 1 << 20})
	// It is known with the sixteenth byte, and no more is read.
	tp := &tape{raw: more}
	Read(tp, Limits{})
	if tp.pos != fixedV2 {
		t.Errorf("read %d bytes", tp.pos)
	}
	// A line has its own bound.
	mustRead(t, validHeaders["v1 TCP4"], Limits{MaxHeader: 20})
}

func TestProxyProtoErrorIsOneShortLine(t *testing.T) {
	evil := "\x1b[31m\r\nlog: forged \u2028\u202e\xff" + strings.Repeat("A", 500)
	for _, raw := range [][]byte{
		[]byte(evil),
		[]byte("PROXY " + evil),
		[]byte("PROXY UNKNOWN" + evil),
		v2(cmdProxy, famTCP4, client4, tlv(0x02, evil)),
		v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x22, evil))),
	} {
		_, err := Read(bytes.NewReader(raw), Limits{})
		checkError(t, err)
	}
	e := &Error{Reason: ReasonBadTLV, Section: "2.2.6", Detail: evil, Err: errors.New(evil)}
	checkError(t, e)
	if !strings.HasSuffix(e.Error(), "(section 2.2.6)") {
		t.Error(e)
	}
}

func TestProxyProtoReasonsAreLabels(t *testing.T) {
	seen := map[Reason]bool{}
	for _, r := range Reasons() {
		if r == "" || seen[r] || strings.Trim(string(r), "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			t.Errorf("%q", r)
		}
		seen[r] = true
	}
}

// What Read returns stays what it is when its buffers serve the next one.
func TestProxyProtoHeaderSharesNoMemory(t *testing.T) {
	h, err := Read(bytes.NewReader(haproxyLike()), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprintf("%+v %+v", *h, *h.TLS)
	for range 100 {
		Read(bytes.NewReader(v2(cmdProxy, famTCP4, client4, tlv(0xe9, strings.Repeat("z", 230)))), Limits{})
	}
	if after := fmt.Sprintf("%+v %+v", *h, *h.TLS); after != before {
		t.Errorf("%s\nwas %s", after, before)
	}
}
