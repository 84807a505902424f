package listener

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/conf"

	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/trust"
)

// parseText parses a configuration as the server does. Each error comes as
// line:column: reason.
func parseText(t testing.TB, text string) ([]*Parsed, []string) {
	t.Helper()
	m, err := conf.ParseWithChecks(text)
	if err != nil {
		t.Fatalf("not a configuration: %v\n%s", err, text)
	}
	return parseMap(t, m)
}

// parseMap does so with the top level of a configuration.
func parseMap(t testing.TB, m map[string]any) ([]*Parsed, []string) {
	t.Helper()
	ls, errs := Parse(m["listeners"], fakeTLS)
	var out []string
	for _, err := range errs {
		var le *Error
		if !errors.As(err, &le) {
			out = append(out, err.Error())
			continue
		}
		if le.Token == nil {
			t.Errorf("no place for: %v", err)
			continue
		}
		out = append(out, fmt.Sprintf("%d:%d: %s", le.Token.Line(), le.Token.Position(), le))
	}
	return ls, out
}

// fakeTLS stands for upstream's parser of a tls block. It has an error of its own
// for a block with bad in it.
func fakeTLS(name string, block any) error {
	if tk, ok := block.(Token); ok {
		block = tk.Value()
	}
	m, ok := block.(map[string]any)
	if !ok || m["bad"] != nil {
		return errors.New("tls block of " + name)
	}
	return nil
}

// one parses a listener called edge, in one line, that has no error.
func one(t *testing.T, body string) *Parsed {
	t.Helper()
	ls, errs := parseText(t, "listeners { edge { "+body+" } }")
	if len(errs) != 0 || len(ls) != 1 {
		t.Fatalf("%s: %d listeners, errors %q", body, len(ls), errs)
	}
	return ls[0]
}

const trusted = `proxy_protocol { trusted: "10.42.0.0/16" }`

func TestListenerOptionsDefaults(t *testing.T) {
	plain := one(t, `listen: 4221`).Options
	if want := (Options{
		Name: "edge", Host: "0.0.0.0", Port: 4221, SocketMode: 0o660, MaxHandshakes: 1024,
	}); !reflect.DeepEqual(plain, want) {
		t.Errorf("plain: %+v, want %+v", plain, want)
	}

	tls := one(t, `listen: 4221, tls {}`).Options
	if want := (Options{
		Name: "edge", Host: "0.0.0.0", Port: 4221, SocketMode: 0o660, MaxHandshakes: 1024, TLS: true,
	}); !reflect.DeepEqual(tls, want) {
		t.Errorf("tls: %+v, want %+v", tls, want)
	}

	proxy := one(t, `listen: 4221, `+trusted).Options
	list, _ := trust.Parse([]string{"10.42.0.0/16"})
	if want := (Options{
		Name: "edge", Host: "0.0.0.0", Port: 4221, SocketMode: 0o660, MaxHandshakes: 1024,
		ProxyProtocol: &ProxyProtocol{
			Trusted: list, HeaderTimeout: 5 * time.Second, Limits: proxyheader.Limits{MaxHeader: 4096}, trustedSet: true,
		},
		AdvertiseTLS: AdvertiseAuto, NoAdvertise: true,
	}); !reflect.DeepEqual(proxy, want) {
		t.Errorf("proxy_protocol: %+v, want %+v", proxy, want)
	}

	both := one(t, `listen: 4221, tls {}, `+trusted)
	if both.AdvertiseTLS != AdvertiseNever || !both.NoAdvertise {
		t.Errorf("proxy_protocol with tls: advertise_tls %s, no_advertise %v", both.AdvertiseTLS, both.NoAdvertise)
	}
}

func TestListenerOptionsAddress(t *testing.T) {
	for _, c := range []struct {
		body, host string
		port       int
		path, show string
	}{
		{`listen: 4221`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`listen: -1`, "0.0.0.0", -1, "", "0.0.0.0:-1"},
		{`listen: 65535`, "0.0.0.0", 65535, "", "0.0.0.0:65535"},
		{`listen: ":4221"`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`listen: 0.0.0.0:4221`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`listen: localhost:4221`, "localhost", 4221, "", "localhost:4221"},
		{`listen: "127.0.0.1:-1"`, "127.0.0.1", -1, "", "127.0.0.1:-1"},
		{`listen: "[::1]:4221"`, "::1", 4221, "", "[::1]:4221"},
		{`listen: "[::]:4221"`, "::", 4221, "", "[::]:4221"},
		{`listen: "[fe80::1%eth0]:4221"`, "fe80::1%eth0", 4221, "", "[fe80::1%eth0]:4221"},
		{`LISTEN: 4221`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`host: 127.0.0.1, port: 4221`, "127.0.0.1", 4221, "", "127.0.0.1:4221"},
		{`net: 127.0.0.1, port: 4221`, "127.0.0.1", 4221, "", "127.0.0.1:4221"},
		{`host: "::1", port: -1`, "::1", -1, "", "[::1]:-1"},
		{`port: 4221`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`host: "", port: 4221`, "0.0.0.0", 4221, "", "0.0.0.0:4221"},
		{`listen: "unix:/run/nats/edge.sock"`, "", 0, "/run/nats/edge.sock", "unix:/run/nats/edge.sock"},
	} {
		l := one(t, c.body)
		if l.Host != c.host || l.Port != c.port || l.SocketPath != c.path || l.Address() != c.show {
			t.Errorf("%s: host %q, port %d, path %q, address %q", c.body, l.Host, l.Port, l.SocketPath, l.Address())
		}
		if l.AddressToken == nil || l.Token == nil {
			t.Errorf("%s: no place", c.body)
		}
	}
}

func TestListenerOptionsValues(t *testing.T) {
	for _, c := range []struct {
		body string
		ok   func(o *Options) bool
	}{
		{`listen: "unix:/s", socket_mode: "0600"`, func(o *Options) bool { return o.SocketMode == 0o600 }},
		{`listen: "unix:/s", socket_mode: "777"`, func(o *Options) bool { return o.SocketMode == 0o777 }},
		{`listen: "unix:/s", socket_mode: "0"`, func(o *Options) bool { return o.SocketMode == 0 }},
		{`listen: "unix:/s", proxy_protocol {}`, func(o *Options) bool {
			return o.ProxyProtocol.Trusted.Empty() && o.AdvertiseTLS == AdvertiseAuto && o.NoAdvertise
		}},
		{`listen: "unix:/s", tls {}`, func(o *Options) bool { return o.TLS && o.ProxyProtocol == nil }},

		{`listen: 1, tls {}, allow_non_tls: true`, func(o *Options) bool { return o.TLS && o.AllowNonTLS }},
		{`listen: 1, tls {}, allow_non_tls: false`, func(o *Options) bool { return o.TLS && !o.AllowNonTLS }},
		{`listen: 1, allow_non_tls: false`, func(o *Options) bool { return !o.TLS && !o.AllowNonTLS }},
		{`listen: 1, tls {}, allow_non_tls: true, ` + trusted, func(o *Options) bool { return o.TLS && o.AllowNonTLS }},

		{`listen: 1, advertise_tls: never`, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseNever }},
		{`listen: 1, advertise_tls: available`, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseAvailable }},
		{`listen: 1, advertise_tls: required`, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseRequired }},
		{`listen: 1, advertise_tls: never, ` + trusted, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseNever }},
		{`listen: 1, advertise_tls: auto, ` + trusted, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseAuto }},
		{`listen: 1, advertise_tls: Available, ` + trusted, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseAvailable }},
		{`listen: 1, advertise_tls: required, ` + trusted, func(o *Options) bool { return o.AdvertiseTLS == AdvertiseRequired }},

		{`listen: 1, advertise: "nats.example.com:4221"`, func(o *Options) bool {
			return reflect.DeepEqual(o.Advertise, []string{"nats.example.com:4221"}) && !o.NoAdvertise
		}},
		{`listen: 1, advertise: ["a:1", "192.0.2.1:65535", "[2001:db8::1]:2"], ` + trusted, func(o *Options) bool {
			return reflect.DeepEqual(o.Advertise, []string{"a:1", "192.0.2.1:65535", "[2001:db8::1]:2"}) && !o.NoAdvertise
		}},
		{`listen: 1, advertise: ["a:1"], no_advertise: false`, func(o *Options) bool { return len(o.Advertise) == 1 && !o.NoAdvertise }},
		{`listen: 1, advertise: []`, func(o *Options) bool { return len(o.Advertise) == 0 && !o.NoAdvertise }},
		{`listen: 1, advertise: [], ` + trusted, func(o *Options) bool { return len(o.Advertise) == 0 && o.NoAdvertise }},
		{`listen: 1, advertise: [], no_advertise: true`, func(o *Options) bool { return o.NoAdvertise }},
		{`listen: 1, no_advertise: true`, func(o *Options) bool { return o.NoAdvertise }},
		{`listen: 1, no_advertise: false, ` + trusted, func(o *Options) bool { return !o.NoAdvertise }},

		{`listen: 1, max_handshakes: 1`, func(o *Options) bool { return o.MaxHandshakes == 1 }},
		{`listen: 1, max_handshakes: 1048576`, func(o *Options) bool { return o.MaxHandshakes == 1048576 }},

		{`listen: 1, proxy_protocol { trusted: ["10.0.0.0/8", "::1"] }`, func(o *Options) bool {
			return o.ProxyProtocol.Trusted.String() == "10.0.0.0/8, ::1"
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", header: first }`, func(o *Options) bool { return o.ProxyProtocol != nil }},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "3s" }`, func(o *Options) bool {
			return o.ProxyProtocol.HeaderTimeout == 3*time.Second
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: 10s }`, func(o *Options) bool {
			return o.ProxyProtocol.HeaderTimeout == 10*time.Second
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "5m" }`, func(o *Options) bool {
			return o.ProxyProtocol.HeaderTimeout == 5*time.Minute
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", max_header: 52 }`, func(o *Options) bool {
			return o.ProxyProtocol.Limits.MaxHeader == 52
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", max_header: 65551 }`, func(o *Options) bool {
			return o.ProxyProtocol.Limits.MaxHeader == 65551
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", crc32c: verify }`, func(o *Options) bool {
			return o.ProxyProtocol.Limits.CRC32C == proxyheader.CRCVerify
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", crc32c: Require }`, func(o *Options) bool {
			return o.ProxyProtocol.Limits.CRC32C == proxyheader.CRCRequire
		}},
	} {
		if l := one(t, c.body); !c.ok(&l.Options) {
			t.Errorf("%s: %+v", c.body, l.Options)
		}
	}
}

// Every option, and everything that contradicts something else: the body of a
// listener and the errors it has, each with the text that it points at; none is
// the listener itself.
func TestListenerOptionsErrors(t *testing.T) {
	type fault struct{ at, reason string }
	for _, c := range []struct {
		body   string
		faults []fault
	}{
		// Where to listen.
		{``, []fault{{``, `listen, or host and port, is required`}}},
		{`host: "127.0.0.1"`, []fault{{``, `listen, or host and port, is required`}}},
		{`host: 7`, []fault{{`host`, `host should be a string, got a number`}, {``, `listen, or host and port, is required`}}},
		{`port: "4221"`, []fault{{`port`, `port should be a number, got a string`}}},
		{`port: 65536`, []fault{{`port`, `port must be between -1 and 65535, got 65536`}}},
		{`port: -2`, []fault{{`port`, `port must be between -1 and 65535, got -2`}}},
		{`port: 0`, []fault{{`port`, `port 0 is no port, -1 chooses a free one`}}},
		{`listen: 0`, []fault{{`listen`, `port 0 is not between 1 and 65535, or -1 for a free one`}}},
		{`listen: 65536`, []fault{{`listen`, `port 65536 is not between 1 and 65535, or -1 for a free one`}}},
		{`listen: "h:-2"`, []fault{{`listen`, `port -2 is not between 1 and 65535, or -1 for a free one`}}},
		{`listen: "h:x"`, []fault{{`listen`, `could not parse port "x"`}}},
		{`listen: "h:"`, []fault{{`listen`, `could not parse port ""`}}},
		{`listen: "h"`, []fault{{`listen`, `could not parse address string "h"`}}},
		{`listen: "::1:4221"`, []fault{{`listen`, `could not parse address string "::1:4221"`}}},
		{`listen: true`, []fault{{`listen`, `expected port, host:port or unix:/path, got a boolean`}}},
		{`listen: 4221.5`, []fault{{`listen`, `expected port, host:port or unix:/path, got a fraction`}}},
		{`listen: ["4221"]`, []fault{{`listen`, `expected port, host:port or unix:/path, got a list`}}},
		{`listen { }`, []fault{{`listen`, `expected port, host:port or unix:/path, got a block`}}},
		{`listen: 4221, port: 4221`, []fault{{`port`, `use either listen or host and port, not both`}}},
		{`listen: 4221, host: "h"`, []fault{{`host`, `use either listen or host and port, not both`}}},
		{`listen: "unix:/s", port: 4221`, []fault{{`port`, `use either listen or host and port, not both`}}},
		{`listen: "unix:"`, []fault{{`listen`, `"unix:" needs an absolute path, like "unix:/run/nats/edge.sock"`}}},
		{`listen: "unix:s", socket_mode: "0600", proxy_protocol {}`, []fault{{`listen`, `"unix:s" needs an absolute path, like "unix:/run/nats/edge.sock"`}}},
		{`listen: "unix:/` + strings.Repeat("x", 103) + `"`, []fault{{`listen`, `path of the socket is longer than 103 bytes`}}},
		{`listen: 1, LISTEN: 2`, []fault{{`listen`, `listen is given twice`}}},
		{`host: "a", net: "b", port: 1`, []fault{{`net`, `host is given twice`}}},

		// The socket of a Unix listener.
		{`listen: 1, socket_mode: "0660"`, []fault{{`socket_mode`, `socket_mode goes with listen: "unix:/path" only`}}},
		{`listen: "unix:/s", socket_mode: 0660`, []fault{{`socket_mode`, `socket_mode should be a string, got a number`}}},
		{`listen: "unix:/s", socket_mode: "rw"`, []fault{{`socket_mode`, `socket_mode "rw" is not an octal mode like "0660"`}}},
		{`listen: "unix:/s", socket_mode: "0888"`, []fault{{`socket_mode`, `socket_mode "0888" is not an octal mode like "0660"`}}},
		{`listen: "unix:/s", socket_mode: "01777"`, []fault{{`socket_mode`, `socket_mode "01777" is not an octal mode like "0660"`}}},
		{`listen: "unix:/s", socket_mode: "-1"`, []fault{{`socket_mode`, `socket_mode "-1" is not an octal mode like "0660"`}}},

		// TLS here, or said to be done elsewhere.
		{`listen: 1, allow_non_tls: true`, []fault{{`allow_non_tls`, `allow_non_tls goes with tls only`}}},
		{`listen: 1, tls {}, allow_non_tls: "x"`, []fault{{`allow_non_tls`, `allow_non_tls should be true or false, got a string`}}},
		{`listen: 1, tls {}, advertise_tls: never`, []fault{{`advertise_tls`, `advertise_tls is for TLS that is not done here and cannot be used together with tls`}}},
		{`listen: 1, tls {}, advertise_tls: auto, ` + trusted, []fault{{`advertise_tls`, `advertise_tls is for TLS that is not done here and cannot be used together with tls`}}},
		{`listen: 1, advertise_tls: auto`, []fault{{`advertise_tls`, `advertise_tls auto goes with proxy_protocol, whose header it reads the proof from`}}},
		{`listen: 1, advertise_tls: maybe`, []fault{{`advertise_tls`, `advertise_tls must be never, auto, available, required, got "maybe"`}}},
		{`listen: 1, advertise_tls: true`, []fault{{`advertise_tls`, `advertise_tls should be a string, got a boolean`}}},

		// Addresses for clients.
		{`listen: 1, advertise: 4221`, []fault{{`advertise`, `advertise should be a string or a list of strings, got a number`}}},
		{`listen: 1, advertise: ["a:1", 2, "b", "c:0", ":4", "d:x", "e f:5"]`, []fault{
			{`2`, `advertise should be a string, got a number`},
			{`b"`, `advertise address "b" is not host:port`},
			{`c:0`, `advertise address "c:0" has no port between 1 and 65535`},
			{`:4"`, `advertise address ":4" is not host:port`},
			{`d:x`, `advertise address "d:x" has no port between 1 and 65535`},
			{`e f`, `advertise address "e f:5" is not host:port`},
		}},
		{`listen: 1, advertise: ["a:65536", "a:-1", "a:+1", "nats://a:1", "u@a:1", "::1:4"]`, []fault{
			{`a:65536`, `advertise address "a:65536" has no port between 1 and 65535`},
			{`a:-1`, `advertise address "a:-1" has no port between 1 and 65535`},
			{`a:+1`, `advertise address "a:+1" has no port between 1 and 65535`},
			{`nats:`, `advertise address "nats://a:1" is not host:port`},
			{`u@a`, `advertise address "u@a:1" is not host:port`},
			{`::1:4`, `advertise address "::1:4" is not host:port`},
		}},
		{`listen: 1, advertise: "a:1", no_advertise: true`, []fault{{`no_advertise`, `no_advertise cannot be used together with advertise`}}},
		{`listen: 1, no_advertise: 1`, []fault{{`no_advertise`, `no_advertise should be true or false, got a number`}}},

		{`listen: 1, max_handshakes: 0`, []fault{{`max_handshakes`, `max_handshakes must be between 1 and 1048576, got 0`}}},
		{`listen: 1, max_handshakes: 1048577`, []fault{{`max_handshakes`, `max_handshakes must be between 1 and 1048576, got 1048577`}}},
		{`listen: 1, max_handshakes: "9"`, []fault{{`max_handshakes`, `max_handshakes should be a number, got a string`}}},
		{`listen: 1, max_handshakes: 1.5`, []fault{{`max_handshakes`, `max_handshakes should be a number, got a fraction`}}},

		// The PROXY protocol.
		{`listen: 1, proxy_protocol: true`, []fault{{`proxy_protocol`, `proxy_protocol is a block with trusted in it here, got a boolean`}}},
		{`listen: 1, proxy_protocol {}`, []fault{{`proxy_protocol`, `proxy_protocol requires trusted, the addresses of the proxies`}}},
		{`listen: 1, proxy_protocol { trusted: [] }`, []fault{{`trusted`, `trusted is empty, so nobody could connect`}}},
		{`listen: 1, proxy_protocol { trusted: 10 }`, []fault{{`trusted`, `trusted should be a string or a list of strings, got a number`}}},
		{`listen: 1, proxy_protocol { trusted: [ 10 ] }`, []fault{{`10`, `trusted should be a string, got a number`}}},
		{`listen: 1, proxy_protocol { trusted: "" }`, []fault{{`trusted`, `trusted: "" is neither an address nor a CIDR network`}}},
		{`listen: 1, proxy_protocol { trusted: ["10.0.0.0/8", "10.42.0.1/16", "edge.svc", "fe80::1%eth0"] }`, []fault{
			{`10.42`, `trusted: network "10.42.0.1/16" has host bits set, did you mean "10.42.0.0/16" or the address "10.42.0.1"`},
			{`edge.svc`, `trusted: "edge.svc" is a host name: host names are not supported, list addresses and CIDR networks`},
			{`fe80`, `trusted: address "fe80::1%eth0" has a zone, which cannot be matched`},
		}},
		{`listen: 1, proxy_protocol { trusted: "::1", header: lazy }`, []fault{{`header`, `header must be "first", got "lazy"`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header: 1 }`, []fault{{`header`, `header should be a string, got a number`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: 5 }`, []fault{{`header_timeout`, `header_timeout should be a string, got a number`}}},
		// Without quotes that is five million in NATS configuration.
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: 5m }`, []fault{{`header_timeout`, `header_timeout should be a string, got a number`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "soon" }`, []fault{{`header_timeout`, `error parsing header_timeout: time: invalid duration "soon"`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "2999ms" }`, []fault{{`header_timeout`, `header_timeout must be between 3s, which lets one lost packet be sent again, and 5m0s, got 2.999s`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "301s" }`, []fault{{`header_timeout`, `header_timeout must be between 3s, which lets one lost packet be sent again, and 5m0s, got 5m1s`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", header_timeout: "-5s" }`, []fault{{`header_timeout`, `header_timeout must be between 3s, which lets one lost packet be sent again, and 5m0s, got -5s`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", max_header: 51 }`, []fault{{`max_header`, `max_header must be between 52 and 65551, got 51`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", max_header: 65552 }`, []fault{{`max_header`, `max_header must be between 52 and 65551, got 65552`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", max_header: "x" }`, []fault{{`max_header`, `max_header should be a number, got a string`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", crc32c: ignore }`, []fault{{`crc32c`, `crc32c must be "verify" or "require", got "ignore"`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", crc32c: true }`, []fault{{`crc32c`, `crc32c should be a string, got a boolean`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", proxies: 1 }`, []fault{{`proxies`, `unknown field "proxies" in proxy_protocol`}}},
		{`listen: 1, proxy_protocol { trusted: "::1", Trusted: "::2" }`, []fault{{`trusted`, `trusted is given twice in proxy_protocol`}}},

		{`listen: 1, jetstream: true`, []fault{{`jetstream`, `unknown field "jetstream"`}}},
		{`listen: 1, Tls_Required: true`, []fault{{`Tls_Required`, `unknown field "Tls_Required"`}}},
	} {
		_, errs := parseText(t, "listeners {\n  edge {\n    "+c.body+"\n  }\n}\n")
		if len(errs) != len(c.faults) {
			t.Errorf("%s: %d errors, want %d: %q", c.body, len(errs), len(c.faults), errs)
			continue
		}
		for i, f := range c.faults {
			// Upstream's place of a value is its key, and that of an element of
			// a list the element.
			line, src, at := 3, "    "+c.body, f.at
			if at == "" {
				line, src, at = 2, "  edge {", "edge"
			}
			if want := fmt.Sprintf("%d:%d: listener %q: %s", line, strings.Index(src, at)+1, "edge", f.reason); errs[i] != want {
				t.Errorf("%s: error\n%s, want\n%s", c.body, errs[i], want)
			}
		}
	}
}

// All that is wrong with a file is said at once, with line and column.
func TestListenerOptionsErrorsAllAtOnce(t *testing.T) {
	_, errs := parseText(t, `port: 4222
listeners {
  "a b" { listen: 4221, tls {} }
  edge {
    listen: "127.0.0.1"
    advertise_tls: maybe
    max_handshakes: 0
    proxy_protocol {
      trusted: [
        "10.42.0.0/16",
        "10.42.0.1/16"
        "proxy.example.com"
      ]
      header: lazy
      max_header: 1
    }
    what: 1
  }
  flat: 4443
  other { listen: 4444, tls { bad: true } }
  partners { listen: 4444, tls { bad: true }, advertise_tls: never }
}
`)
	want := []string{
		`3:4: listener name "a b" may only have letters, digits, '-' and '_', at most 64`,
		`6:5: listener "edge": advertise_tls must be never, auto, available, required, got "maybe"`,
		`5:5: listener "edge": could not parse address string "127.0.0.1"`,
		`7:5: listener "edge": max_handshakes must be between 1 and 1048576, got 0`,
		`14:7: listener "edge": header must be "first", got "lazy"`,
		`15:7: listener "edge": max_header must be between 52 and 65551, got 1`,
		`11:10: listener "edge": trusted: network "10.42.0.1/16" has host bits set, did you mean "10.42.0.0/16" or the address "10.42.0.1"`,
		`12:10: listener "edge": trusted: "proxy.example.com" is a host name: host names are not supported, list addresses and CIDR networks`,
		`17:5: listener "edge": unknown field "what"`,
		`19:3: listener "flat": expected a block, got a number`,
		`21:47: listener "partners": advertise_tls is for TLS that is not done here and cannot be used together with tls`,
		`21:14: listener "partners": address 0.0.0.0:4444 is also that of listener "other"`,
		`tls block of other`,
		`tls block of partners`,
	}
	if !reflect.DeepEqual(errs, want) {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(errs, "\n"), strings.Join(want, "\n"))
	}
}

func TestListenerOptionsNotAMap(t *testing.T) {
	for text, want := range map[string]string{
		`listeners: 4221`:                 `1:0: expected a map of listeners, name { ... }, got a number`,
		`listeners: "4221"`:               `1:0: expected a map of listeners, name { ... }, got a string`,
		`listeners: true`:                 `1:0: expected a map of listeners, name { ... }, got a boolean`,
		`listeners: [ { listen: 4221 } ]`: `1:0: expected a map of listeners, name { ... }, got a list`,
	} {
		if ls, errs := parseText(t, text); len(ls) != 0 || len(errs) != 1 || errs[0] != want {
			t.Errorf("%s: %q, want %s", text, errs, want)
		}
	}
	if ls, errs := parseText(t, `listeners {}`); len(ls) != 0 || len(errs) != 0 {
		t.Errorf("none: %v, %q", ls, errs)
	}
}

func TestListenerOptionsNames(t *testing.T) {
	ok := []string{"edge", "Edge", "EDGE-2", "a_b", "0", strings.Repeat("x", 64)}
	bad := []string{"", "a b", "a.b", "é", "a/b", "a\nb", strings.Repeat("x", 65)}
	for i, name := range append(ok, bad...) {
		_, errs := Parse(map[string]any{name: map[string]any{"listen": int64(4221)}}, fakeTLS)
		if (len(errs) == 0) != (i < len(ok)) {
			t.Errorf("%q: %v", name, errs)
		}
	}
	ls, _ := parseText(t, `listeners { b { listen: 2 }, a { listen: 1 }, C { listen: 3 } }`)
	if len(ls) != 3 || ls[0].Name != "C" || ls[1].Name != "a" || ls[2].Name != "b" {
		t.Errorf("not sorted by name: %v", ls)
	}
}

// fakeToken is a value of a configuration as another parser might make it.
type fakeToken struct {
	v         any
	line, pos int
	variable  bool
}

func (f fakeToken) Value() any           { return f.v }
func (f fakeToken) Line() int            { return f.line }
func (f fakeToken) Position() int        { return f.pos }
func (f fakeToken) IsUsedVariable() bool { return f.variable }
func (f fakeToken) SourceFile() string   { return "fake.conf" }

func TestListenerOptionsTokens(t *testing.T) {
	at := func(line int, v any) fakeToken { return fakeToken{v: v, line: line} }
	ls, errs := Parse(at(1, map[string]any{
		"edge": at(2, map[string]any{
			"listen":         at(3, int64(4221)),
			"proxy_protocol": at(4, map[string]any{"trusted": at(5, []any{at(6, "10.0.0.1/8")})}),
			"x":              at(7, true),
		}),
	}), fakeTLS)
	if len(ls) != 1 || ls[0].Token.Line() != 2 || ls[0].AddressToken.Line() != 3 {
		t.Errorf("places of the listener: %+v", ls)
	}
	var lines []int
	for _, err := range errs {
		lines = append(lines, err.(*Error).Token.Line())
	}
	if !reflect.DeepEqual(lines, []int{6, 7}) {
		t.Errorf("errors in lines %v: %v", lines, errs)
	}

	// Values without a place are taken as they are, and have the place of what
	// they stand in.
	ls, errs = Parse(map[string]any{"edge": map[string]any{
		"listen":         "127.0.0.1:4221",
		"proxy_protocol": map[string]any{"trusted": []any{"::1"}},
	}}, fakeTLS)
	if len(errs) != 0 || len(ls) != 1 || ls[0].Port != 4221 || ls[0].ProxyProtocol.Trusted.String() != "::1" {
		t.Errorf("plain values: %+v, %v", ls, errs)
	}
	_, errs = Parse(map[string]any{"edge": map[string]any{
		"listen": "127.0.0.1:4221", "port": int64(1), "proxy_protocol": map[string]any{},
	}}, fakeTLS)
	if len(errs) != 2 {
		t.Errorf("plain values: %v", errs)
	}
	_, errs = Parse(at(1, map[string]any{"edge": map[string]any{"listen": nil}}), fakeTLS)
	if len(errs) != 1 || errs[0].(*Error).Token.Line() != 1 {
		t.Errorf("a value without a place: %v", errs)
	}
}

// A variable may be defined in any block; only one that nobody uses is an
// unknown field.
func TestListenerOptionsVariables(t *testing.T) {
	ls, errs := parseText(t, `
NETS: ["10.42.0.0/16", "192.0.2.7"]
listeners {
  PORT: 4221
  edge {
    TIMEOUT: "7s"
    listen: $PORT
    proxy_protocol { MAX: 100, trusted: $NETS, header_timeout: $TIMEOUT, max_header: $MAX }
  }
}`)
	if len(errs) != 0 || len(ls) != 1 {
		t.Fatalf("%v, %q", ls, errs)
	}
	l := ls[0]
	if l.Port != 4221 || l.ProxyProtocol.HeaderTimeout != 7*time.Second || l.ProxyProtocol.Limits.MaxHeader != 100 ||
		l.ProxyProtocol.Trusted.String() != "10.42.0.0/16, 192.0.2.7" {
		t.Errorf("%+v", l.Options)
	}

	_, errs = parseText(t, `listeners {
  PORT: 4221
  edge { listen: 4221, TIMEOUT: "7s", proxy_protocol { MAX: 100, trusted: "::1" } }
}`)
	want := []string{
		`2:3: listener "PORT": expected a block, got a number`,
		`3:24: listener "edge": unknown field "TIMEOUT"`,
		`3:56: listener "edge": unknown field "MAX" in proxy_protocol`,
	}
	if !reflect.DeepEqual(errs, want) {
		t.Errorf("errors\n%s\nwant\n%s", strings.Join(errs, "\n"), strings.Join(want, "\n"))
	}

	// A block is a listener, whoever else refers to it.
	ls, errs = parseText(t, `listeners { a { port: 1, host: h }, b: $a }`)
	if len(ls) != 2 || len(errs) != 1 || !strings.Contains(errs[0], `listener "b": address h:1 is also that of listener "a"`) {
		t.Errorf("%v, %q", ls, errs)
	}
}

// The same address twice, as it is written and as it is meant.
func TestListenerOptionsSameAddress(t *testing.T) {
	tcp := func(host string, port int) *Options { return &Options{Host: host, Port: port} }
	sock := func(path string) *Options { return &Options{SocketPath: path} }
	for _, c := range []struct {
		a, b *Options
		same bool
	}{
		{tcp("127.0.0.1", 4221), tcp("127.0.0.1", 4221), true},
		{tcp("127.0.0.1", 4221), tcp("127.0.0.1", 4222), false},
		{tcp("127.0.0.1", 4221), tcp("127.0.0.2", 4221), false},
		{tcp("127.0.0.1", 4221), tcp("0.0.0.0", 4221), true},
		{tcp("127.0.0.1", 4221), tcp("", 4221), true},
		{tcp("127.0.0.1", 4221), tcp("::", 4221), true},
		{tcp("::1", 4221), tcp("0.0.0.0", 4221), true},
		{tcp("::1", 4221), tcp("0:0::1", 4221), true},
		{tcp("::1", 4221), tcp("127.0.0.1", 4221), false},
		{tcp("::ffff:127.0.0.1", 4221), tcp("127.0.0.1", 4221), true},
		{tcp("fe80::1%eth0", 4221), tcp("fe80::1%eth1", 4221), false},
		{tcp("NATS.example", 4221), tcp("nats.EXAMPLE", 4221), true},
		{tcp("", -1), tcp("", -1), false},
		{tcp("", 0), tcp("", 0), false},
		{sock("/run/a"), sock("/run/a"), true},
		{sock("/run/a"), sock("/run//./a"), true},
		{sock("/run/a"), sock("/run/b"), false},
		{sock("/run/a"), tcp("", 4221), false},
	} {
		if SameAddress(c.a, c.b) != c.same || SameAddress(c.b, c.a) != c.same {
			t.Errorf("%s and %s: not %v", c.a.Address(), c.b.Address(), c.same)
		}
	}

	for text, want := range map[string]string{
		`a { listen: 4221 }, b { listen: "127.0.0.1:4221" }`:        `1:36: listener "b": address 127.0.0.1:4221 is also that of listener "a"`,
		`a { listen: "unix:/run/s" }, b { listen: "unix:/run//s" }`: `1:45: listener "b": address unix:/run//s is also that of listener "a"`,
		`a { host: "::1", port: 1 }, b { listen: "[::1]:1" }`:       `1:44: listener "b": address [::1]:1 is also that of listener "a"`,
		`a { listen: -1 }, b { listen: -1 }`:                        ``,
		`a { listen: "127.0.0.1:1" }, b { listen: "[::1]:1" }`:      ``,
		`a { listen: 1 }, b { listen: "unix:/1" }`:                  ``,
	} {
		_, errs := parseText(t, "listeners { "+text+" }")
		if got := strings.Join(errs, "\n"); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestListenerOptionsAdvertiseTLS(t *testing.T) {
	for _, c := range []struct {
		policy                      AdvertiseTLS
		name                        string
		proved, available, required bool
	}{
		{AdvertiseNever, "never", false, false, false},
		{AdvertiseNever, "never", true, false, false},
		{AdvertiseAuto, "auto", false, false, false},
		{AdvertiseAuto, "auto", true, true, false},
		{AdvertiseAvailable, "available", false, true, false},
		{AdvertiseAvailable, "available", true, true, false},
		{AdvertiseRequired, "required", false, false, true},
		{AdvertiseRequired, "required", true, false, true},
	} {
		available, required := c.policy.Fields(c.proved)
		if available != c.available || required != c.required {
			t.Errorf("%s, proved %v: tls_available %v, tls_required %v", c.policy, c.proved, available, required)
		}
		if c.policy.String() != c.name {
			t.Errorf("%s is written %s", c.name, c.policy)
		}
	}
}

// An error of the tls block is passed on as it is, and its block as well.
func TestListenerOptionsTLSBlock(t *testing.T) {
	type tlsError struct{ error }
	seen := map[string]any{}
	m, err := conf.ParseWithChecks(`listeners { a { listen: 1, tls { x: 1 } }, b { listen: 2, tls: 7 }, c { listen: 3 } }`)
	if err != nil {
		t.Fatal(err)
	}
	_, errs := Parse(m["listeners"], func(name string, block any) error {
		seen[name] = block.(Token).Value()
		if name == "b" {
			return tlsError{errors.New("no block")}
		}
		return nil
	})
	if len(errs) != 1 {
		t.Fatalf("errors %v", errs)
	}
	if _, ok := errs[0].(tlsError); !ok {
		t.Errorf("the error was replaced: %T", errs[0])
	}
	if len(seen) != 2 || seen["b"] != int64(7) {
		t.Errorf("blocks %v", seen)
	}
	if _, ok := seen["a"].(map[string]any); !ok {
		t.Errorf("block of a: %T", seen["a"])
	}
}

func FuzzListenerParse(f *testing.F) {
	for _, s := range []string{
		`listeners { edge { listen: 0.0.0.0:4221, proxy_protocol { trusted: ["10.42.0.0/16"] }, advertise: ["nats.example.com:4221"] } }`,
		`listeners { partners { listen: "[::1]:4443", tls { verify: true }, allow_non_tls: true } }`,
		`listeners { s { listen: "unix:/run/s", socket_mode: "0600", proxy_protocol { header: first, header_timeout: "3s", max_header: 100, crc32c: require } } }`,
		`listeners { a { host: "h", port: -1, advertise_tls: required, no_advertise: true, max_handshakes: 1 }, b { listen: 1, tls: 1 } }`,
		`listeners { X: 1, a { listen: $X, listen2: [1, [2], {a: 1}] } }`,
		`listeners: [ 1 ]`, `listeners { a: 2020-01-01T00:00:00Z }`, `listeners {}`, ``, `listeners { a: 1.5 }`,
		`listeners { a { listen: [], tls: [], advertise: {}, proxy_protocol: [ { trusted: [ [] ] } ] } }`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") {
			return // reads files
		}
		for _, parse := range []func(string) (map[string]any, error){conf.Parse, conf.ParseWithChecks} {
			m, err := parse(text)
			if err != nil {
				return
			}
			ls, errs := Parse(m["listeners"], fakeTLS)
			for _, err := range errs {
				if err.Error() == "" {
					t.Fatal("an error that says nothing")
				}
			}
			if len(errs) == 0 {
				for _, l := range ls {
					checkOptions(t, l)
				}
			}
		}
	})
}

// checkOptions checks what holds of every listener that was accepted.
func checkOptions(t *testing.T, l *Parsed) {
	tcp := l.SocketPath == "" && l.Host != "" && (l.Port == -1 || l.Port > 0 && l.Port < 1<<16)
	unix := strings.HasPrefix(l.SocketPath, "/") && l.Host == "" && l.Port == 0
	switch {
	case tcp == unix,
		!validName(l.Name),
		l.MaxHandshakes < 1,
		l.SocketMode&^0o777 != 0,
		l.TLS && l.AdvertiseTLS != AdvertiseNever,
		l.AllowNonTLS && !l.TLS,
		len(l.Advertise) > 0 && l.NoAdvertise:
		t.Fatalf("accepted: %+v", l.Options)
	}
	if pp := l.ProxyProtocol; pp != nil {
		if pp.Trusted.Empty() && !unix || pp.HeaderTimeout < minHeaderTimeout || pp.Limits.MaxHeader < minMaxHeader {
			t.Fatalf("accepted: %+v", pp)
		}
	} else if l.AdvertiseTLS == AdvertiseAuto {
		t.Fatalf("accepted: %+v", l.Options)
	}
	_ = l.Address()
}
