package proxyheader

import (
	"bytes"
	"testing"
)

// BenchmarkRead is one header a connection, as edges send it.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct {
		name string
		raw  []byte
	}{
		{"v1", []byte("PROXY TCP4 203.0.113.7 10.42.0.9 51442 4221\r\n")},
		{"v1-unknown", []byte("PROXY UNKNOWN\r\n")},
		{"v2", v2(cmdProxy, famTCP4, client4)},
		{"v2-local", v2(cmdLocal, 0)},
		{"v2-ssl", v2(cmdProxy, famTCP4, client4, sslTLV(1, 0, tlv(0x21, "TLSv1.3"), tlv(0x23, "TLS_AES_256_GCM_SHA384")))},
		{"v2-all", haproxyLike()},
		{"v2-cert", v2(cmdProxy, famTCP4, client4, sslTLV(3, 0, tlv(0x21, "TLSv1.3"), tlv(0x28, string(make([]byte, 1200)))))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			for b.Loop() {
				r.Reset(c.raw)
				if _, err := Read(r, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
