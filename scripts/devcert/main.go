// Command devcert makes throw-away certificates for development: a CA, a
// server certificate and a client certificate, as PEM files in a directory.
//
//	go run ./scripts/devcert -dir build/run/certs -if-missing
//
// The CA's key is not kept: for another certificate, make a new set.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"nats-trusted-proxy/scripts/devcert/certs"
)

func main() {
	dir := flag.String("dir", "", "directory for the files (required)")
	hosts := flag.String("hosts", strings.Join(certs.DefaultHosts, ","), "names and addresses in the server certificate, separated by commas")
	days := flag.Int("days", 30, "days until the certificates expire; negative: expired that many days ago")
	clientCN := flag.String("client-cn", "demo-client", "common name of the client certificate")
	ifMissing := flag.Bool("if-missing", false, "leave a directory alone that already has valid certificates for these hosts and this client")
	flag.Parse()

	if err := run(*dir, *hosts, *days, *clientCN, *ifMissing, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "devcert:", err)
		os.Exit(1)
	}
}

func run(dir, hosts string, days int, clientCN string, ifMissing bool, rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is no flag", rest[0])
	case dir == "":
		return fmt.Errorf("-dir is required")
	case days == 0:
		return fmt.Errorf("-days 0 makes nothing of use: give a positive or a negative number")
	}
	var list []string
	for h := range strings.SplitSeq(hosts, ",") {
		if h = strings.TrimSpace(h); h != "" {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		return fmt.Errorf("-hosts names none")
	}
	made, err := certs.Write(dir, certs.Opts{Hosts: list, Days: days, ClientCN: clientCN, IfMissing: ifMissing})
	if err != nil {
		return err
	}
	if made {
		fmt.Printf("devcert: throw-away certificates made in %s: for development only\n", dir)
	}
	return nil
}
