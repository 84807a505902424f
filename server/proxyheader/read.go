package proxyheader

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"github.com/pires/go-proxyproto"
)

const (
	v1Signature = "PROXY "
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"

	// firstBytes is what may be asked for while the version is not known: no
	// header is shorter.
	firstBytes = len(v2Signature)

	// startBuffer is the size of the reused buffer, more than what most
	// headers need.
	startBuffer = 256

	// maxEmptyReads is how often a reader may return nothing and no error.
	maxEmptyReads = 100
)

// Read reads one header from r, version 1 or 2, and not a byte beyond its end.
// It takes the header in any pieces it arrives in. It sets no deadline: that is
// for the caller to do, once, on the connection behind r.
//
// Each error is an [*Error]. After one, r is of no use but to be closed: how
// much of it was read is not defined.
func Read(r io.Reader, lim Limits) (*Header, error) {
	s := sources.Get().(*source)
	s.start(r)
	defer s.release()
	for {
		switch identify(s.buf) {
		case version1:
			return s.readV1(lim)
		case version2:
			return s.readV2(lim)
		case noVersion:
			return nil, notAHeader(s.buf)
		}
		if err := s.more(firstBytes - len(s.buf)); err != nil {
			return nil, err
		}
	}
}

// version is what the first bytes say.
type version uint8

const (
	undecided version = iota
	noVersion
	version1
	version2
)

// identify decides on the bytes in hand, as early as they allow.
func identify(b []byte) version {
	if n := min(len(b), len(v2Signature)); string(b[:n]) == v2Signature[:n] {
		if n == len(v2Signature) {
			return version2
		}
		return undecided
	}
	if n := min(len(b), len(v1Signature)); string(b[:n]) == v1Signature[:n] {
		if n == len(v1Signature) {
			return version1
		}
		return undecided
	}
	return noVersion
}

// source is one header being read: where from, and what is there so far.
// Sources are reused; nothing in a Header may point into one.
type source struct {
	r   io.Reader
	err error  // came together with bytes; due at the next Read
	buf []byte // the header so far
	// For the library, which reads from a bufio.Reader.
	whole bytes.Reader
	lib   *bufio.Reader
	// What buf starts as.
	fixed [startBuffer]byte
}

var sources = sync.Pool{New: func() any {
	s := new(source)
	s.lib = bufio.NewReaderSize(&s.whole, startBuffer)
	return s
}}

func (s *source) start(r io.Reader) {
	s.r, s.err, s.buf = r, nil, s.fixed[:0]
}

// release drops what a large header made buf grow to.
func (s *source) release() {
	s.r, s.err, s.buf = nil, nil, nil
	s.whole.Reset(nil)
	sources.Put(s)
}

// more makes one Read and adds at least 1 and at most n bytes to buf. The
// buffer doubles when it is full of bytes that did arrive.
func (s *source) more(n int) error {
	if len(s.buf) == cap(s.buf) {
		grown := make([]byte, len(s.buf), 2*cap(s.buf))
		copy(grown, s.buf)
		s.buf = grown
	}
	have := len(s.buf)
	got, err := s.read(s.buf[have:min(have+n, cap(s.buf))], have)
	s.buf = s.buf[:have+got]
	return err
}

// upTo reads until the header so far has n bytes.
func (s *source) upTo(n int) error {
	for len(s.buf) < n {
		if err := s.more(n - len(s.buf)); err != nil {
			return err
		}
	}
	return nil
}

// skip reads n bytes and forgets them.
func (s *source) skip(n int) error {
	seen := len(s.buf)
	scratch := s.fixed[:]
	for n > 0 {
		got, err := s.read(scratch[:min(n, len(scratch))], seen)
		if err != nil {
			return err
		}
		seen += got
		n -= got
	}
	return nil
}

// read fills some of p, at least a byte; seen is how many bytes came before.
func (s *source) read(p []byte, seen int) (int, error) {
	if s.err != nil {
		return 0, readError(s.err, seen)
	}
	for range maxEmptyReads {
		n, err := s.r.Read(p)
		if n > 0 {
			s.err = err
			return n, nil
		}
		if err != nil {
			return 0, readError(err, seen)
		}
	}
	return 0, readError(io.ErrNoProgress, seen)
}

// readError names a failed read by two questions: was it the deadline, and had
// anything been read.
func readError(err error, seen int) error {
	e := &Error{Section: "2", Err: err}
	late := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case seen == 0 && late:
		e.Reason = ReasonSilent
	case seen == 0:
		e.Reason = ReasonClosed
	case late:
		e.Reason = ReasonLate
	default:
		e.Reason = ReasonTruncated
	}
	if seen > 0 {
		e.Detail = "after " + strconv.Itoa(seen) + " bytes"
	}
	return e
}

// decode has the library decode a header that passed our checks, and returns
// its endpoints; bad is the reason should it not agree.
func (s *source) decode(header []byte, family proxyproto.AddressFamilyAndProtocol, bad Reason, section string) (src, dst netip.AddrPort, err error) {
	s.whole.Reset(header)
	s.lib.Reset(&s.whole)
	h, err := proxyproto.Read(s.lib)
	if err != nil {
		return src, dst, &Error{Reason: bad, Section: section, Detail: "does not decode", Err: err}
	}
	from, okFrom := h.SourceAddr.(*net.TCPAddr)
	to, okTo := h.DestinationAddr.(*net.TCPAddr)
	if !okFrom || !okTo || h.Command != proxyproto.PROXY || h.TransportProtocol != family ||
		s.whole.Len() != 0 || s.lib.Buffered() != 0 {
		return src, dst, fail(bad, section, "does not decode as framed")
	}
	src, dst = unmap(from.AddrPort()), unmap(to.AddrPort())
	if !src.IsValid() || !dst.IsValid() {
		return src, dst, fail(bad, section, "does not decode as framed")
	}
	return src, dst, checkSource(src.Addr())
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkSource refuses what no client can have as its address. The destination
// is only told, and a proxy may well listen on the unspecified address.
func checkSource(a netip.Addr) error {
	what := ""
	switch {
	case a.IsUnspecified():
		what = "unspecified"
	case a.IsMulticast():
		what = "multicast"
	case a == broadcast:
		what = "broadcast"
	default:
		return nil
	}
	return fail(ReasonBadAddress, "", what+" source "+a.String())
}
