package proxyheader

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/pires/go-proxyproto"
)

// maxLine is the longest version 1 line, CRLF included (section 2.1).
const maxLine = 107

// readV1 reads the line whose "PROXY " is in hand.
func (s *source) readV1(lim Limits) (*Header, error) {
	if lim.CRC32C == CRCRequire {
		return nil, fail(ReasonCRCMissing, "2.2.3", "version 1 has no checksum")
	}
	for {
		need, err := missingV1(s.buf)
		if err != nil {
			return nil, err
		}
		if need == 0 {
			break
		}
		if len(s.buf)+need > maxLine {
			return nil, badV1("no CRLF in the first 107 bytes", s.buf)
		}
		if err := s.more(need); err != nil {
			return nil, err
		}
	}
	h := &Header{Version: 1}
	var family proxyproto.AddressFamilyAndProtocol
	switch s.buf[len(v1Signature)+3] {
	case '4':
		family = proxyproto.TCPv4
	case '6':
		family = proxyproto.TCPv6
	default:
		h.Local = true
		return h, nil
	}
	var err error
	h.Source, h.Destination, err = s.decode(s.buf, family, ReasonBadV1, "2.1")
	if err != nil {
		return nil, err
	}
	return h, nil
}

func badV1(what string, line []byte) *Error {
	return fail(ReasonBadV1, "2.1", what+": "+quote(line[len(v1Signature):]))
}

// A field of the line after the family: what it is made of, and how short and
// how long it can be.
type field struct {
	kind     kind
	alphabet string
	min, max int
}

type kind string

const (
	port kind = "port"
	ipv4 kind = "IPv4 address"
	ipv6 kind = "IPv6 address"
)

const digits = "0123456789"

var (
	portField = field{port, digits, 1, len("65535")}
	ipv4Field = field{ipv4, digits + ".", len("0.0.0.0"), len("255.255.255.255")}
	// The longest is an IPv4-mapped address in full.
	ipv6Field = field{ipv6, digits + "abcdefABCDEF:.", len("::"), len("0000:0000:0000:0000:0000:ffff:255.255.255.255")}

	families = []struct {
		word   string
		fields []field
	}{
		{"TCP4 ", []field{ipv4Field, ipv4Field, portField, portField}},
		{"TCP6 ", []field{ipv6Field, ipv6Field, portField, portField}},
		{"UNKNOWN", nil},
	}
)

// missingV1 checks the line so far, which starts with "PROXY ", and returns how
// many bytes at least are still missing: zero means that it is whole. An error
// means that no bytes to come can make it a header.
func missingV1(line []byte) (int, error) {
	rest := line[len(v1Signature):]
	least := 0
	for _, f := range families {
		n := min(len(rest), len(f.word))
		if string(rest[:n]) != f.word[:n] {
			continue
		}
		if n == len(f.word) {
			if f.fields == nil {
				return missingUnknown(line, rest[n:])
			}
			return missingInFields(line, rest[n:], f.fields)
		}
		// Several may begin like this; the shortest of them counts.
		need := len(f.word) - n + missingFields(f.fields)
		if least == 0 || need < least {
			least = need
		}
	}
	if least == 0 {
		return 0, badV1("no TCP4, TCP6 or UNKNOWN", line)
	}
	return least, nil
}

// missingFields is the shortest that fields with a space between them and CRLF
// can be.
func missingFields(fields []field) int {
	n := max(0, len(fields)-1) + len("\r\n")
	for _, f := range fields {
		n += f.min
	}
	return n
}

func missingInFields(line, rest []byte, fields []field) (int, error) {
	for i, f := range fields {
		last := i == len(fields)-1
		n := 0
		for n < len(rest) && strings.IndexByte(f.alphabet, rest[n]) >= 0 {
			n++
		}
		if err := f.check(line, rest[:n], n < len(rest)); err != nil {
			return 0, err
		}
		if n == len(rest) { // the line so far ends in this field
			need := f.missing(rest) + missingFields(fields[i+1:])
			if !last {
				need++
			}
			return need, nil
		}
		end := byte(' ')
		if last {
			end = '\r'
		}
		if rest[n] != end {
			return 0, badV1("bad byte in "+string(f.kind)+" or after it", line)
		}
		rest = rest[n+1:]
	}
	switch string(rest) {
	case "":
		return 1, nil
	case "\n":
		return 0, nil
	}
	return 0, badV1("CR without LF", line)
}

// missing is the least that has to follow what is there of a field.
func (f *field) missing(have []byte) int {
	if f.kind != ipv4 {
		return max(0, f.min-len(have))
	}
	n := 2 * (3 - bytes.Count(have, []byte(".")))
	if len(have) == 0 || have[len(have)-1] == '.' {
		n++
	}
	return n
}

// check refuses what no such field can be or, when it is not whole yet, become.
// What an address says inside is left to the library, once the line is whole.
func (f *field) check(line, have []byte, whole bool) error {
	if len(have) > f.max || whole && len(have) < f.min {
		return badV1(string(f.kind)+" of impossible length", line)
	}
	switch f.kind {
	case ipv4:
		if dots := bytes.Count(have, []byte(".")); dots > 3 || whole && dots < 3 {
			return badV1("IPv4 address without four numbers", line)
		}
	case ipv6:
		if whole && bytes.IndexByte(have, ':') < 0 {
			return badV1("no IPv6 address after TCP6", line)
		}
	case port:
		if len(have) > 1 && have[0] == '0' {
			return badV1("port with a leading zero", line)
		}
		if n, _ := strconv.Atoi(string(have)); n > 65535 {
			return badV1("port above 65535", line)
		}
	}
	return nil
}

// missingUnknown: anything may follow UNKNOWN, after a space, up to CRLF. A CR
// or LF of its own is refused there too, since readers differ on whether it
// ends a line, and what comes after would be header to one and data to another.
func missingUnknown(line, rest []byte) (int, error) {
	if len(rest) == 0 {
		return len("\r\n"), nil
	}
	if rest[0] != ' ' && rest[0] != '\r' {
		return 0, badV1("no space or CRLF after UNKNOWN", line)
	}
	end := bytes.IndexAny(rest, "\r\n")
	switch {
	case end < 0:
		return len("\r\n"), nil
	case rest[end] == '\n':
		return 0, badV1("LF without CR", line)
	case end == len(rest)-1:
		return 1, nil
	case rest[end+1] != '\n':
		return 0, badV1("CR without LF", line)
	}
	return 0, nil
}
