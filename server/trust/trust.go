// Package trust decides which socket peers a listener believes.
//
// A PROXY protocol header is only as good as the peer that sent it, so a
// receiver takes one from listed peers and from nobody else (proxy-protocol.txt
// section 2). A List is that list: immutable once parsed, safe for concurrent
// use, and empty (nobody is trusted) as its zero value.
package trust

import (
	"fmt"
	"net/netip"
	"strings"
)

// List is a set of addresses and networks. The zero value trusts nobody.
type List struct {
	prefixes []netip.Prefix
}

// Parse makes a List of CIDR networks and single addresses, IPv4 and IPv6. It
// returns every error, each for the entry with the same index (nil where the
// entry is good), so that a configuration can report all of them at once.
func Parse(entries []string) (List, []error) {
	var (
		l    List
		errs []error
	)
	for i, e := range entries {
		p, err := parseEntry(e)
		if err != nil {
			if errs == nil {
				errs = make([]error, len(entries))
			}
			errs[i] = err
			continue
		}
		l.prefixes = append(l.prefixes, p)
	}
	return l, errs
}

func parseEntry(e string) (netip.Prefix, error) {
	if !strings.Contains(e, "/") {
		a, err := netip.ParseAddr(e)
		if err != nil && isHostName(e) {
			return netip.Prefix{}, fmt.Errorf("%q is a host name: host names are not supported, list addresses and CIDR networks", e)
		}
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a CIDR network", e)
		}
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("address %q has a zone, which cannot be matched", e)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(e)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a CIDR network", e)
	}
	// Peers are compared as IPv4 when they are IPv4-mapped, so the entry has to
	// be as well, or it would never match.
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("network %q mixes IPv4-mapped and IPv6 addresses, write it as IPv4", e)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if m := p.Masked(); m != p {
		return netip.Prefix{}, fmt.Errorf("network %q has host bits set, did you mean %q or the address %q", e, m, p.Addr())
	}
	return p, nil
}

// isHostName reports whether a person meant a host name: only what one is made
// of, with a letter in it.
func isHostName(s string) bool {
	letters := false
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
			letters = true
		case r >= '0' && r <= '9', r == '.', r == '-', r == '_':
		default:
			return false
		}
	}
	return letters
}

// Contains reports whether the peer is listed. An IPv4-mapped IPv6 address is
// the IPv4 address it maps; a zone is not compared. The invalid address is not
// listed anywhere.
func (l List) Contains(peer netip.Addr) bool {
	peer = peer.Unmap().WithZone("")
	for _, p := range l.prefixes {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// Empty reports whether nobody is trusted.
func (l List) Empty() bool { return len(l.prefixes) == 0 }

// TrustsEveryone reports whether the list holds a network of length zero, which
// is every address of its family.
func (l List) TrustsEveryone() bool {
	for _, p := range l.prefixes {
		if p.Bits() == 0 {
			return true
		}
	}
	return false
}

// Prefixes returns the networks as they are matched, single addresses as /32
// and /128.
func (l List) Prefixes() []netip.Prefix { return append([]netip.Prefix(nil), l.prefixes...) }

// String lists the networks, separated by a comma and a space.
func (l List) String() string {
	var b strings.Builder
	for i, p := range l.prefixes {
		if i > 0 {
			b.WriteString(", ")
		}
		if p.IsSingleIP() {
			b.WriteString(p.Addr().String())
		} else {
			b.WriteString(p.String())
		}
	}
	return b.String()
}
