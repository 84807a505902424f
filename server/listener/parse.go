package listener

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/trust"
)

const unixPrefix = "unix:"

// Token is a value of the configuration with its place. Upstream's tokens are
// of this shape; a value that is no Token (a default, a test) is taken as it is.
type Token interface {
	Value() any
	Line() int
	IsUsedVariable() bool
	SourceFile() string
	Position() int
}

// Error is one fault of the configuration. Token says where; it is nil when the
// place is not known.
type Error struct {
	Token  Token
	Reason string
}

// Error returns the reason alone: whoever shows it knows how to write the place.
func (e *Error) Error() string { return e.Reason }

// Parsed is a listener and where its parts stood, for errors found later.
type Parsed struct {
	Options
	// Token is the listener's block, AddressToken what gave its address.
	Token, AddressToken Token
}

// parser collects every fault instead of stopping at the first.
type parser struct {
	errs []*Error
	tls  func(name string, block any) error
}

// Parse reads the listeners map of a configuration. parseTLS is called for each
// tls block with the listener's name and the block as it stands in the
// configuration; an error it returns is passed on in the result as it is, since it
// knows its own place. The listeners come sorted by name. With
// errors the listeners are incomplete and must not be used.
func Parse(v any, parseTLS func(name string, block any) error) (ls []*Parsed, errs []error) {
	p := &parser{}
	var tlsErrs []error
	p.tls = func(name string, block any) error {
		err := parseTLS(name, block)
		if err != nil {
			tlsErrs = append(tlsErrs, err)
		}
		return err
	}
	tk, v := unwrap(v, nil)
	m, ok := v.(map[string]any)
	if !ok {
		p.errorf(tk, "expected a map of listeners, name { ... }, got %s", kind(v))
	}
	for _, name := range sortedKeys(m) {
		if !isVariable(m[name]) {
			ls = append(ls, p.listener(name, m[name], tk))
		}
	}
	p.conflicts(ls)
	for _, e := range p.errs {
		errs = append(errs, e)
	}
	return ls, append(errs, tlsErrs...)
}

func (p *parser) errorf(tk Token, format string, args ...any) {
	p.errs = append(p.errs, &Error{Token: tk, Reason: fmt.Sprintf(format, args...)})
}

// listener reads one entry of the map. parent is the place to name when the
// entry has none of its own.
func (p *parser) listener(name string, v any, parent Token) *Parsed {
	tk, v := unwrap(v, parent)
	l := &Parsed{Token: tk, AddressToken: tk}
	l.Name = name
	l.SocketMode = DefaultSocketMode
	l.MaxHandshakes = DefaultMaxHandshakes
	if !validName(name) {
		p.errorf(tk, "listener name %q may only have letters, digits, '-' and '_', at most 64", name)
	}
	m, ok := v.(map[string]any)
	if !ok {
		p.errorf(tk, "listener %q: expected a block, got %s", name, kind(v))
		return l
	}

	at := map[string]Token{} // where each option stands, by its name
	given := func(option string) bool { _, ok := at[option]; return ok }
	for _, key := range sortedKeys(m) {
		tk, v := unwrap(m[key], tk)
		k := option(key)
		if given(k) {
			p.errorf(tk, "listener %q: %s is given twice", name, k)
			continue
		}
		at[k] = tk
		switch k {
		case "listen":
			l.AddressToken = tk
			p.listen(l, tk, v)
		case "host":
			l.AddressToken = tk
			l.Host, _ = p.str(name, key, tk, v)
		case "port":
			l.AddressToken = tk
			if n, ok := p.num(name, key, tk, v, -1, 65535); ok {
				l.Port = int(n)
				if n == 0 {
					p.errorf(tk, "listener %q: port 0 is no port, -1 chooses a free one", name)
				}
			}
		case "socket_mode":
			if s, ok := p.str(name, key, tk, v); ok {
				mode, err := strconv.ParseUint(s, 8, 32)
				if err != nil || mode > 0o777 {
					p.errorf(tk, "listener %q: socket_mode %q is not an octal mode like \"0660\"", name, s)
				}
				l.SocketMode = fs.FileMode(mode)
			}
		case "tls":
			l.TLS = true
			// An error is collected by the caller's own type.
			_ = p.tls(name, m[key])
		case "allow_non_tls":
			if b, ok := p.boolean(name, key, tk, v); ok {
				l.AllowNonTLS = b
			}
		case "proxy_protocol":
			l.ProxyProtocol = p.proxyProtocol(name, tk, v)
		case "advertise_tls":
			if s, ok := p.str(name, key, tk, v); ok {
				p.advertiseTLS(l, tk, s)
			}
		case "advertise":
			p.advertise(l, tk, v)
		case "no_advertise":
			if b, ok := p.boolean(name, key, tk, v); ok {
				l.NoAdvertise = b
			}
		case "max_handshakes":
			if n, ok := p.num(name, key, tk, v, 1, 1<<20); ok {
				l.MaxHandshakes = int(n)
			}
		default:
			p.unknown(tk, "listener %q: unknown field %q", name, key)
		}
	}

	// What contradicts what. Each names the place of the option that gives way.
	switch {
	case given("listen") && (given("host") || given("port")):
		p.errorf(cmp.Or(at["host"], at["port"]), "listener %q: use either listen or host and port, not both", name)
	case !given("listen") && !given("port"):
		p.errorf(tk, "listener %q: listen, or host and port, is required", name)
	}
	if l.SocketPath == "" && l.Host == "" {
		l.Host = DefaultHost
	}
	if l.SocketPath == "" && given("socket_mode") {
		p.errorf(at["socket_mode"], "listener %q: socket_mode goes with listen: \"unix:/path\" only", name)
	}
	if l.TLS && given("advertise_tls") {
		p.errorf(at["advertise_tls"], "listener %q: advertise_tls is for TLS that is not done here and cannot be used together with tls", name)
	}
	if !l.TLS && l.AllowNonTLS {
		p.errorf(at["allow_non_tls"], "listener %q: allow_non_tls goes with tls only", name)
	}
	if len(l.Advertise) > 0 && l.NoAdvertise {
		p.errorf(at["no_advertise"], "listener %q: no_advertise cannot be used together with advertise", name)
	}
	if l.ProxyProtocol != nil && !l.ProxyProtocol.trustedSet && l.SocketPath == "" {
		p.errorf(at["proxy_protocol"], "listener %q: proxy_protocol requires trusted, the addresses of the proxies", name)
	}
	if l.ProxyProtocol != nil {
		if !l.TLS && !given("advertise_tls") {
			l.AdvertiseTLS = AdvertiseAuto
		}
		if !given("no_advertise") && len(l.Advertise) == 0 {
			l.NoAdvertise = true
		}
	} else if l.AdvertiseTLS == AdvertiseAuto {
		p.errorf(at["advertise_tls"], "listener %q: advertise_tls auto goes with proxy_protocol, whose header it reads the proof from", name)
	}
	return l
}

// listen reads host:port, a port alone, or unix:/path.
func (p *parser) listen(l *Parsed, tk Token, v any) {
	switch v := v.(type) {
	case int64:
		l.Port = int(v)
	case string:
		if path, ok := strings.CutPrefix(v, unixPrefix); ok {
			if path == "" || path[0] != '/' {
				p.errorf(tk, "listener %q: %q needs an absolute path, like \"unix:/run/nats/edge.sock\"", l.Name, v)
				path = "/" + path // a Unix socket was meant, whatever else is checked
			}
			// The kernel's limit (sun_path) on the platforms we build for.
			if len(path) > 103 {
				p.errorf(tk, "listener %q: path of the socket is longer than 103 bytes", l.Name)
			}
			l.SocketPath = path
			return
		}
		host, port, err := net.SplitHostPort(v)
		if err != nil {
			p.errorf(tk, "listener %q: could not parse address string %q", l.Name, v)
			return
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			p.errorf(tk, "listener %q: could not parse port %q", l.Name, port)
			return
		}
		l.Host, l.Port = host, n
	default:
		p.errorf(tk, "listener %q: expected port, host:port or unix:/path, got %s", l.Name, kind(v))
		return
	}
	if l.Port == 0 || l.Port < -1 || l.Port > 65535 {
		p.errorf(tk, "listener %q: port %d is not between 1 and 65535, or -1 for a free one", l.Name, l.Port)
	}
}

func (p *parser) advertiseTLS(l *Parsed, tk Token, s string) {
	for i, n := range advertiseNames {
		if strings.EqualFold(s, n) {
			l.AdvertiseTLS = AdvertiseTLS(i)
			return
		}
	}
	p.errorf(tk, "listener %q: advertise_tls must be %s, got %q", l.Name, strings.Join(advertiseNames[:], ", "), s)
}

func (p *parser) advertise(l *Parsed, tk Token, v any) {
	for _, e := range p.strs(l.Name, "advertise", tk, v) {
		host, port, err := net.SplitHostPort(e.s)
		n, perr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || host == "":
			p.errorf(e.tk, "listener %q: advertise address %q is not host:port", l.Name, e.s)
		case perr != nil || n == 0:
			p.errorf(e.tk, "listener %q: advertise address %q has no port between 1 and 65535", l.Name, e.s)
		case strings.ContainsAny(host, " \t\r\n/@"):
			p.errorf(e.tk, "listener %q: advertise address %q is not host:port", l.Name, e.s)
		default:
			l.Advertise = append(l.Advertise, e.s)
		}
	}
}

// proxyProtocol reads the block of that name.
func (p *parser) proxyProtocol(name string, tk Token, v any) *ProxyProtocol {
	pp := &ProxyProtocol{HeaderTimeout: DefaultHeaderTimeout}
	pp.Limits.MaxHeader = DefaultMaxHeader
	m, ok := v.(map[string]any)
	if !ok {
		p.errorf(tk, "listener %q: proxy_protocol is a block with trusted in it here, got %s", name, kind(v))
		pp.trustedSet = true // the one error is enough
		return pp
	}
	given := map[string]bool{}
	for _, key := range sortedKeys(m) {
		tk, v := unwrap(m[key], tk)
		k := option(key)
		if given[k] {
			p.errorf(tk, "listener %q: %s is given twice in proxy_protocol", name, k)
			continue
		}
		given[k] = true
		switch k {
		case "trusted":
			pp.trustedSet = true
			p.trusted(name, pp, tk, v)
		case "header":
			if s, ok := p.str(name, key, tk, v); ok && !strings.EqualFold(s, "first") {
				p.errorf(tk, "listener %q: header must be \"first\", got %q", name, s)
			}
		case "header_timeout":
			if s, ok := p.str(name, key, tk, v); ok {
				d, err := time.ParseDuration(s)
				switch {
				case err != nil:
					p.errorf(tk, "listener %q: error parsing header_timeout: %v", name, err)
				case d < minHeaderTimeout || d > maxHeaderTimeout:
					p.errorf(tk, "listener %q: header_timeout must be between %v, which lets one lost packet be sent again, and %v, got %v",
						name, minHeaderTimeout, maxHeaderTimeout, d)
				default:
					pp.HeaderTimeout = d
				}
			}
		case "max_header":
			if n, ok := p.num(name, key, tk, v, minMaxHeader, maxMaxHeader); ok {
				pp.Limits.MaxHeader = int(n)
			}
		case "crc32c":
			if s, ok := p.str(name, key, tk, v); ok {
				switch strings.ToLower(s) {
				case "verify":
					pp.Limits.CRC32C = proxyheader.CRCVerify
				case "require":
					pp.Limits.CRC32C = proxyheader.CRCRequire
				default:
					p.errorf(tk, "listener %q: crc32c must be \"verify\" or \"require\", got %q", name, s)
				}
			}
		default:
			p.unknown(tk, "listener %q: unknown field %q in proxy_protocol", name, key)
		}
	}
	return pp
}

func (p *parser) trusted(name string, pp *ProxyProtocol, tk Token, v any) {
	es := p.strs(name, "trusted", tk, v)
	entries := make([]string, len(es))
	for i, e := range es {
		entries[i] = e.s
	}
	list, errs := trust.Parse(entries)
	for i, err := range errs {
		if err != nil {
			p.errorf(es[i].tk, "listener %q: trusted: %v", name, err)
		}
	}
	if none, ok := v.([]any); ok && len(none) == 0 {
		p.errorf(tk, "listener %q: trusted is empty, so nobody could connect", name)
	}
	pp.Trusted = list
}

// conflicts finds listeners that want the same address.
func (p *parser) conflicts(ls []*Parsed) {
	for i, a := range ls {
		for _, b := range ls[:i] {
			if SameAddress(&a.Options, &b.Options) {
				p.errorf(a.AddressToken, "listener %q: address %s is also that of listener %q", a.Name, a.Address(), b.Name)
			}
		}
	}
}

// SameAddress reports whether both cannot listen at once. A wildcard host takes
// the port on every interface; free ports never clash.
func SameAddress(a, b *Options) bool {
	if a.SocketPath != "" || b.SocketPath != "" {
		return filepath.Clean(a.SocketPath) == filepath.Clean(b.SocketPath)
	}
	return SameHostPort(a.Host, a.Port, b.Host, b.Port)
}

// SameHostPort is SameAddress for TCP addresses. A port of zero or less (unset,
// or any free one) is the same as no other.
func SameHostPort(hostA string, portA int, hostB string, portB int) bool {
	if portA != portB || portA <= 0 {
		return false
	}
	a, b := canonicalHost(hostA), canonicalHost(hostB)
	return a == "" || b == "" || a == b
}

// canonicalHost writes equal hosts the same way, and every wildcard as empty.
func canonicalHost(h string) string {
	a, err := netip.ParseAddr(h)
	switch {
	case err != nil:
		return strings.ToLower(h)
	case a.IsUnspecified():
		return ""
	}
	return a.Unmap().String()
}

// option returns the name of an option as this package knows it: in lower case,
// and net, as upstream has it as well, is host.
func option(key string) string {
	key = strings.ToLower(key)
	if key == "net" {
		return "host"
	}
	return key
}

// isVariable reports whether an entry of the listeners map only defines a
// variable that is used elsewhere. A block is a listener, used or not.
func isVariable(v any) bool {
	tk, ok := v.(Token)
	if !ok || !tk.IsUsedVariable() {
		return false
	}
	_, block := tk.Value().(map[string]any)
	return !block
}

// unknown reports a key that nobody knows, unless it only defines a variable
// that is used elsewhere, which a NATS configuration may do in any block.
func (p *parser) unknown(tk Token, format string, args ...any) {
	if tk == nil || !tk.IsUsedVariable() {
		p.errorf(tk, format, args...)
	}
}

func (p *parser) str(name, key string, tk Token, v any) (string, bool) {
	s, ok := v.(string)
	if !ok {
		p.errorf(tk, "listener %q: %s should be a string, got %s", name, key, kind(v))
	}
	return s, ok
}

func (p *parser) boolean(name, key string, tk Token, v any) (bool, bool) {
	b, ok := v.(bool)
	if !ok {
		p.errorf(tk, "listener %q: %s should be true or false, got %s", name, key, kind(v))
	}
	return b, ok
}

func (p *parser) num(name, key string, tk Token, v any, least, most int64) (int64, bool) {
	n, ok := v.(int64)
	switch {
	case !ok:
		p.errorf(tk, "listener %q: %s should be a number, got %s", name, key, kind(v))
	case n < least || n > most:
		p.errorf(tk, "listener %q: %s must be between %d and %d, got %d", name, key, least, most, n)
		ok = false
	}
	return n, ok
}

type placed struct {
	s  string
	tk Token
}

// strs reads a string or a list of strings.
func (p *parser) strs(name, key string, tk Token, v any) []placed {
	if s, ok := v.(string); ok {
		return []placed{{s, tk}}
	}
	vs, ok := v.([]any)
	if !ok {
		p.errorf(tk, "listener %q: %s should be a string or a list of strings, got %s", name, key, kind(v))
		return nil
	}
	var out []placed
	for _, e := range vs {
		etk, e := unwrap(e, tk)
		if s, ok := p.str(name, key, etk, e); ok {
			out = append(out, placed{s, etk})
		}
	}
	return out
}

// unwrap returns the place and the value of an item; parent stands in for the
// place of an item that has none.
func unwrap(v any, parent Token) (Token, any) {
	if tk, ok := v.(Token); ok {
		return tk, tk.Value()
	}
	return parent, v
}

func sortedKeys(m map[string]any) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return false
		}
	}
	return true
}

// kind names a value's type as a person who writes configurations would.
func kind(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case int64:
		return "a number"
	case float64:
		return "a fraction"
	case []any:
		return "a list"
	case map[string]any:
		return "a block"
	}
	return fmt.Sprintf("%T", v)
}
