// Command devedge is a small edge proxy for development: it ends TLS and passes
// the connection on behind a PROXY protocol v2 header that says who the client
// is and what its TLS was.
//
//	client ==TLS==> devedge --PROXY v2, then plain--> trusted-proxy listener
//
// It has no limits, no logs to speak of and one upstream. In production use
// HAProxy or another real proxy; conf/ has files for it.
//
// SIGHUP reads the certificates again; SIGTERM and SIGINT stop accepting, give
// open connections -drain to end, and then close them.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	var o edgeOpts
	flag.StringVar(&o.Listen, "listen", "127.0.0.1:4443", "address that clients connect to")
	flag.StringVar(&o.Upstream, "upstream", "127.0.0.1:4221", "trusted-proxy listener: host:port, or unix:/path.sock")
	flag.StringVar(&o.CertFile, "cert", "", "certificate of the edge (PEM)")
	flag.StringVar(&o.KeyFile, "key", "", "its private key (PEM)")
	flag.StringVar(&o.ClientCAFile, "client-ca", "", "verify client certificates by this CA, where a client has one (PEM)")
	flag.StringVar(&o.ALPN, "alpn", "", "protocols to negotiate, separated by commas")
	flag.StringVar(&o.UpstreamCAFile, "upstream-tls-ca", "", "TLS to the server too, after the header: the CA of its certificate (PEM)")
	flag.StringVar(&o.UpstreamName, "upstream-name", "", "name in the server's certificate, with -upstream-tls-ca (default: the host of -upstream)")
	flag.BoolVar(&o.Passthrough, "passthrough", false, "end no TLS: send the header, then the client's bytes as they are")
	flag.DurationVar(&o.HandshakeTimeout, "handshake-timeout", 10*time.Second, "time for the TLS handshake of a client, and for reaching the server")
	drain := flag.Duration("drain", 2*time.Second, "time for open connections to end once told to stop")
	flag.Parse()
	if flag.NArg() > 0 {
		fail(fmt.Errorf("%q is no flag", flag.Arg(0)))
	}
	o.Logf = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "devedge: "+format+"\n", args...)
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)

	o.Logf("FOR DEVELOPMENT ONLY: no limits, no hardening; use HAProxy or another real proxy in production")
	e, err := startEdge(o)
	if err != nil {
		fail(err)
	}
	o.Logf("listening on %s, %s, to %s", e.Addr(), o.mode(), o.Upstream)

	for sig := range signals {
		if sig == syscall.SIGHUP {
			if err := e.Reload(); err != nil {
				o.Logf("reload: %v; going on with the certificates at hand", err)
			} else {
				o.Logf("reloaded")
			}
			continue
		}
		break
	}
	o.Logf("stopping: open connections have %v", *drain)
	// A second signal does not wait.
	signal.Reset(syscall.SIGTERM, syscall.SIGINT)
	if n := e.Drain(*drain); n > 0 {
		o.Logf("%d connection(s) closed", n)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "devedge:", err)
	os.Exit(1)
}
