package trust

import (
	"net/netip"
	"strings"
	"testing"
)

func mustParse(t *testing.T, entries ...string) List {
	t.Helper()
	l, errs := Parse(entries)
	if errs != nil {
		t.Fatalf("Parse(%q): %v", entries, errs)
	}
	return l
}

func TestTrustContains(t *testing.T) {
	for _, c := range []struct {
		entry   string
		in, out []string
	}{
		{"10.42.0.0/16", []string{"10.42.0.0", "10.42.255.255", "10.42.7.9"}, []string{"10.41.255.255", "10.43.0.0", "0.0.0.0", "2001:db8::1"}},
		{"192.0.2.7", []string{"192.0.2.7"}, []string{"192.0.2.6", "192.0.2.8", "::c000:207"}},
		{"192.0.2.7/32", []string{"192.0.2.7"}, []string{"192.0.2.6"}},
		{"2001:db8::/32", []string{"2001:db8::1", "2001:db8:ffff::"}, []string{"2001:db9::", "32.1.13.184"}},
		{"2001:DB8::7", []string{"2001:db8::7", "2001:db8:0:0::7"}, []string{"2001:db8::8"}},
		{"::1", []string{"::1"}, []string{"127.0.0.1", "::2"}},
		{"0.0.0.0/0", []string{"203.0.113.7", "0.0.0.0"}, []string{"2001:db8::1", "::"}},
		{"::/0", []string{"2001:db8::1", "::"}, []string{"203.0.113.7"}},

		// An IPv4 peer of a dual-stack socket is IPv4-mapped, and so may be
		// what a person copied from a log.
		{"10.42.0.0/16", []string{"::ffff:10.42.0.1"}, []string{"::ffff:10.43.0.1"}},
		{"::/0", nil, []string{"::ffff:203.0.113.7"}},
		{"::ffff:10.42.0.1", []string{"10.42.0.1", "::ffff:10.42.0.1"}, []string{"10.42.0.2"}},
		{"::ffff:10.42.0.0/112", []string{"10.42.0.1", "::ffff:10.42.255.255"}, []string{"10.43.0.1"}},
		{"::ffff:0:0/96", []string{"203.0.113.7", "::ffff:203.0.113.7"}, []string{"2001:db8::1"}},

		// A link-local peer has a zone, which is the receiver's own.
		{"fe80::/10", []string{"fe80::1%eth0", "fe80::1"}, []string{"fec0::1%eth0"}},
		{"fe80::1", []string{"fe80::1%eth0", "fe80::1%2"}, []string{"fe80::2%eth0"}},
	} {
		l := mustParse(t, c.entry)
		for _, a := range c.in {
			if !l.Contains(netip.MustParseAddr(a)) {
				t.Errorf("%s does not contain %s", c.entry, a)
			}
		}
		for _, a := range c.out {
			if l.Contains(netip.MustParseAddr(a)) {
				t.Errorf("%s contains %s", c.entry, a)
			}
		}
		if l.Contains(netip.Addr{}) {
			t.Errorf("%s contains the invalid address", c.entry)
		}
	}
}

func TestTrustEmpty(t *testing.T) {
	var zero List
	for _, l := range []List{zero, mustParse(t)} {
		if !l.Empty() || l.TrustsEveryone() || l.String() != "" || len(l.Prefixes()) != 0 {
			t.Errorf("an empty list: %+v", l)
		}
		for _, a := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
			if l.Contains(netip.MustParseAddr(a)) {
				t.Errorf("an empty list contains %s", a)
			}
		}
		if l.Contains(netip.Addr{}) {
			t.Error("an empty list contains the invalid address")
		}
	}
}

func TestTrustErrors(t *testing.T) {
	for _, c := range []struct{ entry, want string }{
		{"10.42.0.1/16", `network "10.42.0.1/16" has host bits set, did you mean "10.42.0.0/16" or the address "10.42.0.1"`},
		{"2001:db8::1/64", `network "2001:db8::1/64" has host bits set, did you mean "2001:db8::/64" or the address "2001:db8::1"`},
		{"::ffff:10.42.0.1/112", `network "::ffff:10.42.0.1/112" has host bits set, did you mean "10.42.0.0/16" or the address "10.42.0.1"`},
		{"::ffff:10.0.0.0/8", `network "::ffff:10.0.0.0/8" mixes IPv4-mapped and IPv6 addresses, write it as IPv4`},
		{"fe80::1%eth0", `address "fe80::1%eth0" has a zone, which cannot be matched`},
		{"proxy.edge.svc.cluster.local", `"proxy.edge.svc.cluster.local" is a host name: host names are not supported, list addresses and CIDR networks`},
		{"localhost", `"localhost" is a host name: host names are not supported, list addresses and CIDR networks`},
		{"", `"" is neither an address nor a CIDR network`},
		{" 10.0.0.1", `" 10.0.0.1" is neither an address nor a CIDR network`},
		{"10.0.0.1 ", `"10.0.0.1 " is neither an address nor a CIDR network`},
		{"10.0.0", `"10.0.0" is neither an address nor a CIDR network`},
		{"10.0.0.256", `"10.0.0.256" is neither an address nor a CIDR network`},
		{"10.0.0.01", `"10.0.0.01" is neither an address nor a CIDR network`},
		{"10.0.0.1-10.0.0.9", `"10.0.0.1-10.0.0.9" is neither an address nor a CIDR network`},
		{"10.0.0.1:4221", `"10.0.0.1:4221" is neither an address nor a CIDR network`},
		{"[::1]", `"[::1]" is neither an address nor a CIDR network`},
		{"*", `"*" is neither an address nor a CIDR network`},
		{"10.0.0.0/33", `"10.0.0.0/33" is neither an address nor a CIDR network`},
		{"10.0.0.0/-1", `"10.0.0.0/-1" is neither an address nor a CIDR network`},
		{"10.0.0.0/08", `"10.0.0.0/08" is neither an address nor a CIDR network`},
		{"10.0.0.0/255.0.0.0", `"10.0.0.0/255.0.0.0" is neither an address nor a CIDR network`},
		{"10.0.0.0/", `"10.0.0.0/" is neither an address nor a CIDR network`},
		{"::/129", `"::/129" is neither an address nor a CIDR network`},
		{"fe80::%eth0/64", `"fe80::%eth0/64" is neither an address nor a CIDR network`},
		{"example.com/24", `"example.com/24" is neither an address nor a CIDR network`},
		{"10.0.0.1\n", `"10.0.0.1\n" is neither an address nor a CIDR network`},
	} {
		l, errs := Parse([]string{c.entry})
		if len(errs) != 1 || errs[0] == nil || errs[0].Error() != c.want {
			t.Errorf("Parse(%q): %v, want %s", c.entry, errs, c.want)
		}
		if !l.Empty() {
			t.Errorf("Parse(%q) trusts %s in spite of the error", c.entry, l)
		}
	}
}

// Each error is at the index of its entry, and there may be several.
func TestTrustErrorsAllAtOnce(t *testing.T) {
	l, errs := Parse([]string{"nope.example", "10.0.0.0/8", "10.0.0.1/8", "::1"})
	if len(errs) != 4 || errs[0] == nil || errs[1] != nil || errs[2] == nil || errs[3] != nil {
		t.Fatalf("errors %v", errs)
	}
	if l.String() != "10.0.0.0/8, ::1" {
		t.Errorf("what was good: %s", l)
	}
}

func TestTrustString(t *testing.T) {
	l := mustParse(t, "10.42.0.0/16", "192.0.2.7/32", "::ffff:192.0.2.9", "2001:DB8::/32", "2001:db8::7", "::ffff:10.0.0.0/104")
	const want = "10.42.0.0/16, 192.0.2.7, 192.0.2.9, 2001:db8::/32, 2001:db8::7, 10.0.0.0/8"
	if l.String() != want {
		t.Errorf("%s, want %s", l, want)
	}
	if again := mustParse(t, strings.Split(l.String(), ", ")...); again.String() != want {
		t.Errorf("read back as %s", again)
	}
}

func TestTrustsEveryone(t *testing.T) {
	for entry, want := range map[string]bool{
		"0.0.0.0/0": true, "::/0": true, "::ffff:0:0/96": true,
		"0.0.0.0": false, "::": false, "0.0.0.0/1": false, "10.0.0.0/8": false,
	} {
		if got := mustParse(t, "192.0.2.7", entry).TrustsEveryone(); got != want {
			t.Errorf("%s: %v", entry, got)
		}
	}
}

// A List is immutable: neither its input nor what it gives out is its own.
func TestTrustImmutable(t *testing.T) {
	in := []string{"192.0.2.7"}
	l := mustParse(t, in...)
	in[0] = "0.0.0.0/0"
	l.Prefixes()[0] = netip.MustParsePrefix("0.0.0.0/0")
	if l.String() != "192.0.2.7" {
		t.Errorf("changed to %s", l)
	}
}

func FuzzTrustParse(f *testing.F) {
	for _, s := range []string{
		"", "10.42.0.0/16", "10.42.0.1/16", "192.0.2.7", "2001:db8::/32", "::1", "0.0.0.0/0", "::/0",
		"::ffff:10.42.0.1", "::ffff:10.42.0.0/112", "::ffff:10.0.0.0/8", "::ffff:0:0/96",
		"fe80::1%eth0", "fe80::%eth0/64", "localhost", "proxy.example", "10.0.0.1:80", "[::1]", "10.0.0.0/33", "1/1", "/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, entry string) {
		l, errs := Parse([]string{entry})
		if errs != nil {
			if len(errs) != 1 || errs[0] == nil || !l.Empty() {
				t.Fatalf("%q: errors %v, list %s", entry, errs, l)
			}
			if strings.ContainsAny(errs[0].Error(), "\n\r\x00\x1b") {
				t.Fatalf("%q: raw text in the error %q", entry, errs[0])
			}
			return
		}
		p := l.Prefixes()
		if len(p) != 1 || !p[0].IsValid() || p[0] != p[0].Masked() || p[0].Addr().Is4In6() || p[0].Addr().Zone() != "" {
			t.Fatalf("%q: %v", entry, p)
		}
		a := p[0].Addr()
		if !l.Contains(a) || !l.Contains(netip.AddrFrom16(a.As16())) {
			t.Fatalf("%q does not contain its own address", entry)
		}
		again, errs := Parse([]string{l.String()})
		if errs != nil || again.String() != l.String() {
			t.Fatalf("%q: written as %s, read back as %s, %v", entry, l, again, errs)
		}
	})
}
