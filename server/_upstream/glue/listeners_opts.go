package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"

	"nats-trusted-proxy/server/listener"
)

// listenerOpts are the options of one named listener. They do not change once
// they are parsed, but for tlsConfig, which OCSP stapling replaces before they
// are in force.
type listenerOpts struct {
	*listener.Parsed
	tlsConfig *tls.Config    // nil without a tls block
	tlsOpts   *TLSConfigOpts // nil without a tls block

	advertiseHost string // of the first address in Advertise
	advertisePort int
}

// parseListeners reads the listeners block of a configuration.
func (o *Options) parseListeners(v any, errors *[]error) {
	blocks := make(map[string]*listenerOpts)
	parsed, errs := listener.Parse(v, func(name string, block any) error {
		lo, err := parseListenerTLS(block)
		blocks[name] = lo
		return err
	})
	for _, err := range errs {
		*errors = append(*errors, listenerConfigErr(err))
	}
	// With errors as well: their addresses are still to be checked against the
	// rest of the configuration, which is then refused.
	o.listeners = nil
	for _, l := range parsed {
		lo := blocks[l.Name]
		if lo == nil {
			lo = &listenerOpts{}
		}
		lo.Parsed = l
		if len(l.Advertise) > 0 {
			// Checked when it was parsed.
			lo.advertiseHost, lo.advertisePort, _ = parseHostPort(l.Advertise[0], 0)
		}
		o.listeners = append(o.listeners, lo)
	}
}

// listenerConfigErr gives an error of the configuration the form, and with it
// the place, of upstream's.
func listenerConfigErr(err error) error {
	var le *listener.Error
	if !errors.As(err, &le) {
		return err
	}
	tk, _ := le.Token.(token)
	return &configErr{tk, le.Reason}
}

func parseListenerTLS(block any) (*listenerOpts, error) {
	tk, v := unwrapValue(block, nil)
	if _, ok := v.(map[string]any); !ok {
		return nil, &configErr{tk, fmt.Sprintf("expected a tls block, got %T", v)}
	}
	tc, err := parseTLS(block, true)
	if err != nil {
		return nil, err
	}
	if tc.RateLimit != 0 {
		return nil, &configErr{tk, "connection_rate_limit in the tls block of a listener is not supported, max_handshakes bounds the handshakes of a listener"}
	}
	config, err := GenTLSConfig(tc)
	if err != nil {
		return nil, &configErr{tk, err.Error()}
	}
	return &listenerOpts{tlsConfig: config, tlsOpts: tc}, nil
}

// checkListenerAddresses reports the listeners that want an address which
// another part of the configuration, or a flag of the command line, has.
func (o *Options) checkListenerAddresses(errors *[]error) {
	for _, lo := range o.listeners {
		if of := o.addressTaken(lo); of != _EMPTY_ {
			tk, _ := lo.AddressToken.(token)
			*errors = append(*errors, &configErr{tk, fmt.Sprintf("listener %q: address %s is also that of %s", lo.Name, lo.Address(), of)})
		}
	}
}

// addressTaken returns which other port of the server the listener's address is.
func (o *Options) addressTaken(lo *listenerOpts) string {
	// A port that is not set will become the default.
	port := o.Port
	if port == 0 && !o.DontListen {
		port = DEFAULT_PORT
	}
	for _, a := range []struct {
		of   string
		host string
		port int
	}{
		{"the main client port", o.Host, port},
		{"http", o.HTTPHost, o.HTTPPort},
		{"https", o.HTTPHost, o.HTTPSPort},
		{"cluster", o.Cluster.Host, o.Cluster.Port},
		{"gateway", o.Gateway.Host, o.Gateway.Port},
		{"leafnodes", o.LeafNode.Host, o.LeafNode.Port},
		{"websocket", o.Websocket.Host, o.Websocket.Port},
		{"mqtt", o.MQTT.Host, o.MQTT.Port},
		{"prof_port", o.Host, o.ProfPort},
	} {
		if listener.SameHostPort(lo.Host, lo.Port, a.host, a.port) {
			return fmt.Sprintf("%s (%s)", a.of, net.JoinHostPort(a.host, fmt.Sprint(a.port)))
		}
	}
	return _EMPTY_
}

// listenerNamed returns the options of that listener, nil when there is none.
func (o *Options) listenerNamed(name string) *listenerOpts {
	for _, lo := range o.listeners {
		if lo.Name == name {
			return lo
		}
	}
	return nil
}

// sameSocket reports whether a socket opened for one serves the other.
func (lo *listenerOpts) sameSocket(other *listenerOpts) bool {
	return lo.Host == other.Host && lo.Port == other.Port && lo.SocketPath == other.SocketPath
}

// sameOptions reports whether nothing was changed between two configurations.
// Certificates are read again by any reload and not compared.
func (lo *listenerOpts) sameOptions(other *listenerOpts) bool {
	return reflect.DeepEqual(lo.Options, other.Options) && reflect.DeepEqual(lo.tlsOpts, other.tlsOpts)
}

// pinnedCerts returns the certificates that clients must have one of; nil when
// any will do.
func (lo *listenerOpts) pinnedCerts() PinnedCertSet {
	if lo.tlsOpts == nil {
		return nil
	}
	return lo.tlsOpts.PinnedCerts
}
