package accept

import (
	"net"
	"syscall"
	"testing"
)

type noLog struct{}

func (noLog) Warnf(string, ...any)  {}
func (noLog) Errorf(string, ...any) {}
func (noLog) Debugf(string, ...any) {}

// BenchmarkAcceptHeader is one connection: accepted, its header read, handed
// over, closed. The peer's end is made of bare system calls, so that what is
// allocated is the server's; "net" is what package net takes of that by itself,
// for Accept and Close.
func BenchmarkAcceptHeader(b *testing.B) {
	b.Run("net", func(b *testing.B) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		defer ln.Close()
		benchConnections(b, ln.Addr(), nil, func() {
			c, err := ln.Accept()
			if err != nil {
				b.Fatal(err)
			}
			c.Close()
		})
	})
	for _, c := range []struct {
		name   string
		header []byte
		policy *Policy
	}{
		{"plain", nil, &Policy{MaxHandshakes: 1024}},
		{"v1", v1("203.0.113.7:51442", "10.42.0.9:4221"), behind(patience)},
		{"v2", client4, behind(patience)},
		{"v2-local", v2("", ""), behind(patience)},
	} {
		b.Run(c.name, func(b *testing.B) {
			done := make(chan struct{})
			r := serve(b, "127.0.0.1:0", c.policy, func(cfg *Config) {
				cfg.Log = noLog{}
				cfg.Go = func(f func()) bool { go f(); return true }
				cfg.Handoff = func(c net.Conn) { c.Close(); done <- struct{}{} }
			})
			benchConnections(b, r.Addr(), c.header, func() { <-done })
			eventually(b, "the last handshake", func() bool { return r.Handshakes() == 0 })
		})
	}
}

func benchConnections(b *testing.B, addr net.Addr, header []byte, wait func()) {
	to := &syscall.SockaddrInet4{Port: addr.(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	b.ReportAllocs()
	for b.Loop() {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		if err := syscall.Connect(fd, to); err != nil {
			b.Fatal(err)
		}
		if header != nil {
			if _, err := syscall.Write(fd, header); err != nil {
				b.Fatal(err)
			}
		}
		wait()
		// No TIME_WAIT, or there would soon be no port left.
		_ = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
		syscall.Close(fd)
	}
}
