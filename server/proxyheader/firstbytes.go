package proxyheader

import "bytes"

// notAHeader says what came instead of a header, by the bytes in hand, which
// may be as few as one. Bytes that are only the start of a word count as that
// word, NATS first: a hint for people must not wait for more.
func notAHeader(b []byte) *Error {
	detail := "starts with " + quote(b)
	if bytes.HasPrefix(b, []byte("PROXY")) {
		return fail(ReasonBadV1, "2.1", "no space after PROXY: "+quote(b))
	}
	reason := ReasonNoHeader
	switch {
	case startsTLS(b):
		reason = ReasonTLSClientHello
	case startsNATS(b):
		reason = ReasonNATSClient
	case startsHTTP(b):
		reason = ReasonHTTP
	}
	return fail(reason, "2.2", detail)
}

// startsTLS: a handshake record of any version so far.
func startsTLS(b []byte) bool {
	return b[0] == 0x16 && (len(b) == 1 || b[1] == 0x03)
}

var natsVerbs = []string{"CONNECT", "PING", "PONG", "SUB", "UNSUB", "PUB", "HPUB"}

// startsNATS: verbs are case-insensitive. CONNECT is HTTP's too; in NATS an
// object follows.
func startsNATS(b []byte) bool {
	for _, verb := range natsVerbs {
		rest, ok := startsWord(bytes.ToUpper(b), verb)
		if !ok {
			continue
		}
		rest = bytes.TrimLeft(rest, " \t\r\n")
		return verb != "CONNECT" || len(rest) == 0 || rest[0] == '{'
	}
	return false
}

var httpMethods = []string{"GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI"}

// startsHTTP: methods are case-sensitive. PRI opens HTTP/2.
func startsHTTP(b []byte) bool {
	for _, method := range httpMethods {
		if _, ok := startsWord(b, method); ok {
			return true
		}
	}
	return false
}

// startsWord reports whether b is the word and white space, or a start of that,
// and what follows the word.
func startsWord(b []byte, word string) (rest []byte, ok bool) {
	n := min(len(b), len(word))
	if string(b[:n]) != word[:n] {
		return nil, false
	}
	rest = b[n:]
	return rest, len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0
}
