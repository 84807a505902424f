package proxyheader

import (
	"strconv"
	"strings"
)

// Reason says in one stable word why there is no header. It is a metric label:
// its values are those below, never a peer's bytes.
type Reason string

const (
	// ReasonClosed: closed (or reset) before the first byte. Health probes do that.
	ReasonClosed Reason = "closed"
	// ReasonSilent: no byte came before the deadline.
	ReasonSilent Reason = "silent"
	// ReasonLate: the deadline came in the middle of the header.
	ReasonLate Reason = "late"
	// ReasonTruncated: closed (or reset) in the middle of the header.
	ReasonTruncated Reason = "truncated"

	// ReasonTLSClientHello: the peer starts a TLS handshake.
	ReasonTLSClientHello Reason = "tls_client_hello"
	// ReasonNATSClient: the peer speaks NATS.
	ReasonNATSClient Reason = "nats_client"
	// ReasonHTTP: the peer speaks HTTP.
	ReasonHTTP Reason = "http"
	// ReasonNoHeader: the first bytes are anything else that is no header.
	ReasonNoHeader Reason = "no_header"

	// ReasonBadV1: the line of a version 1 header is malformed.
	ReasonBadV1 Reason = "bad_v1"
	// ReasonBadV2: the block of a version 2 header is malformed.
	ReasonBadV2 Reason = "bad_v2"
	// ReasonBadTLV: a TLV is malformed, has a bad value or is there twice.
	ReasonBadTLV Reason = "bad_tlv"
	// ReasonBadAddress: the source can be no client's address.
	ReasonBadAddress Reason = "bad_address"
	// ReasonCRCMismatch: the checksum is wrong.
	ReasonCRCMismatch Reason = "crc_mismatch"
	// ReasonCRCMissing: there is no checksum, and CRCRequire asks for one.
	ReasonCRCMissing Reason = "crc_missing"
	// ReasonTooLong: the announced length exceeds Limits.MaxHeader.
	ReasonTooLong Reason = "too_long"
	// ReasonUnsupported: a version or command that does not exist, or PROXY for
	// anything but TCP.
	ReasonUnsupported Reason = "unsupported"
)

// Reasons returns every Reason there is, in a fixed order.
func Reasons() []Reason {
	return []Reason{
		ReasonClosed, ReasonSilent, ReasonLate, ReasonTruncated,
		ReasonTLSClientHello, ReasonNATSClient, ReasonHTTP, ReasonNoHeader,
		ReasonBadV1, ReasonBadV2, ReasonBadTLV, ReasonBadAddress,
		ReasonCRCMismatch, ReasonCRCMissing, ReasonTooLong, ReasonUnsupported,
	}
}

// Error is the only type of error that Read returns.
type Error struct {
	// Reason is the short name, never empty.
	Reason Reason
	// Section is the specification's section that was broken, such as "2.2.3";
	// empty when the text does not ask for it (a limit, or a rule of ours).
	Section string
	// Detail is for people. Peer bytes in it are quoted and cut.
	Detail string
	// Err is the cause, for errors.Is and errors.As; nil when there is none.
	Err error
}

// maxErrorText bounds Error.Error, in bytes.
const maxErrorText = 200

// Error is one line of printable ASCII, at most 200 bytes, safe for a log
// whatever the peer sent.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("PROXY protocol header: ")
	b.WriteString(string(e.Reason))
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	tail := ""
	if e.Section != "" {
		tail = " (section " + e.Section + ")"
	}
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, b.String())
	if keep := max(0, maxErrorText-len(tail)); len(text) > keep {
		text = text[:max(0, keep-3)] + "..."
	}
	return text + tail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func fail(reason Reason, section, detail string) *Error {
	return &Error{Reason: reason, Section: section, Detail: detail}
}

// quote shows peer bytes: ASCII only, escaped, cut after 24.
func quote(b []byte) string {
	const most = 24
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}
