// Package proxyheader receives one PROXY protocol header, strictly.
//
// The header is what a proxy puts in front of a connection to say whose
// connection it is. Since its receiver believes it, there is one rule for
// doubt: refuse. Sections cited here and in [Error.Section] are those of
// HAProxy's doc/proxy-protocol.txt.
//
// # One header's life
//
// A connection was accepted from a peer that the configuration trusts, and its
// read deadline is set; both are the caller's work (section 2). [Read] takes it
// from there.
//
// First bytes. One Read of at most twelve bytes is made, fewer than any header
// has, so nothing that follows the header can be swallowed. Whatever arrives is
// judged at once: as soon as it can be the start neither of the binary
// signature nor of "PROXY ", the connection fails, with a [Reason] that tells a
// TLS ClientHello, a NATS client and an HTTP request apart (sections 2.1, 2.2).
// A client that came to the wrong port hears so without waiting for a deadline.
//
// Version 1, a line (section 2.1). Its length is not announced, so each Read
// asks for no more than what the shortest possible end of the line still needs.
// Each byte is checked as it comes: one space between fields, digits where
// digits belong, CRLF and nothing else at the end, 107 bytes at most. With CRLF
// in hand the addresses are decoded. UNKNOWN says to use the connection's own
// endpoints: [Header.Local].
//
// Version 2, a block (section 2.2). The sixteen fixed bytes give version,
// command, family and length, each judged when it is there; an announced length
// beyond [Limits.MaxHeader] ends it before a byte of the block is read. Then
// exactly the announced bytes are read. The buffer grows as they arrive, never
// by what is announced. LOCAL throws the block away unseen, the family byte too.
//
// Inside the block, nothing is looked at before all of it is there. The TLVs
// must end where the block ends. Then comes the checksum (section 2.2.3),
// before any value is believed, and then the values: host name, certificate
// name, TLS facts (sections 2.2.1 to 2.2.7). Types that are not known are
// skipped, and kept in [Header.TLVs].
//
// The addresses are decoded by github.com/pires/go-proxyproto, on bytes that
// passed. It accepts more than this package does; where it contradicts what is
// already known the header is refused.
//
// What comes out is a [Header] that shares no memory with anything reused, and
// a connection whose next byte is the first one after the header.
//
// # What a header proves
//
// [TLS.Proved] and [TLS.CertProved] are the only two questions to ask about the
// client's TLS. A verify result of zero alone proves nothing: proxies send it
// for plain connections as well.
package proxyheader
