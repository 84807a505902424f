package proxyheader

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/pires/go-proxyproto"
)

const (
	fixedV2   = 16 // signature, version and command, family, length
	atCommand = 12
	atFamily  = 13
	atLength  = 14

	addrs4 = 2*4 + 2*2
	addrs6 = 2*16 + 2*2
)

// readV2 reads the header whose signature is in hand.
func (s *source) readV2(lim Limits) (*Header, error) {
	if err := s.upTo(atCommand + 1); err != nil {
		return nil, err
	}
	command := proxyproto.ProtocolVersionAndCommand(s.buf[atCommand])
	if command != proxyproto.LOCAL && command != proxyproto.PROXY {
		return nil, fail(ReasonUnsupported, "2.2", fmt.Sprintf("version and command %#02x", byte(command)))
	}

	if err := s.upTo(atFamily + 1); err != nil {
		return nil, err
	}
	family := proxyproto.AddressFamilyAndProtocol(s.buf[atFamily])
	addrs := 0
	switch {
	case command == proxyproto.LOCAL: // the family is ignored
	case family == proxyproto.TCPv4:
		addrs = addrs4
	case family == proxyproto.TCPv6:
		addrs = addrs6
	default:
		return nil, fail(ReasonUnsupported, "2.2", fmt.Sprintf("PROXY with family %#02x, which is not TCP", byte(family)))
	}

	if err := s.upTo(fixedV2); err != nil {
		return nil, err
	}
	length := int(binary.BigEndian.Uint16(s.buf[atLength:]))
	if most := lim.maxHeader(); fixedV2+length > most {
		return nil, fail(ReasonTooLong, "", fmt.Sprintf("%d bytes announced, %d allowed", fixedV2+length, most))
	}
	if length < addrs {
		return nil, fail(ReasonBadV2, "2.2", fmt.Sprintf("%d bytes announced, addresses alone have %d", length, addrs))
	}
	if command == proxyproto.LOCAL {
		if err := s.skip(length); err != nil {
			return nil, err
		}
		return &Header{Version: 2, Local: true}, nil
	}

	if err := s.upTo(fixedV2 + length); err != nil {
		return nil, err
	}
	area := s.buf[fixedV2+addrs:]
	count, crc, err := frame(area)
	if err != nil {
		return nil, err
	}
	switch {
	case crc >= 0:
		if err := checkCRC(s.buf, len(s.buf)-len(area)+crc); err != nil {
			return nil, err
		}
	case lim.CRC32C == CRCRequire:
		return nil, fail(ReasonCRCMissing, "2.2.3", "no checksum")
	}

	h := &Header{Version: 2}
	if err := h.takeTLVs(area, count); err != nil {
		return nil, err
	}
	// The TLVs are dealt with. Leave them away for the library, which has its
	// own, global, bound on a header's length.
	head := s.buf[:fixedV2+addrs]
	binary.BigEndian.PutUint16(head[atLength:], uint16(addrs))
	h.Source, h.Destination, err = s.decode(head, family, ReasonBadV2, "2.2")
	if err != nil {
		return nil, err
	}
	return h, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkCRC verifies the checksum whose four bytes are at that offset: it is
// computed with zeros in their place.
func checkCRC(header []byte, at int) error {
	var zeros [4]byte
	sum := crc32.Update(0, castagnoli, header[:at])
	sum = crc32.Update(sum, castagnoli, zeros[:])
	sum = crc32.Update(sum, castagnoli, header[at+4:])
	if told := binary.BigEndian.Uint32(header[at:]); told != sum {
		return fail(ReasonCRCMismatch, "2.2.3", fmt.Sprintf("checksum %#08x, computed %#08x", told, sum))
	}
	return nil
}
