// Command nats-server is upstream's server with named listeners.
//
// It takes upstream's flags, signals and configuration files as they are.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"nats-trusted-proxy/server/revision"
)

// Upstream has no such name. If the compiler says that this one is undefined,
// the tree that is built is not the patched one: run `make build`, or
// `go run ./scripts/patch apply` and then go build.
const _ = server.RunMakeBuildToPatchUpstream

const exe = "nats-server"

func main() {
	fs := flag.NewFlagSet(exe, flag.ExitOnError)
	fs.Usage = func() { usage(fs) }

	opts, err := server.ConfigureOptions(fs, os.Args[1:], printVersion, fs.Usage, server.PrintTLSHelpAndDie)
	if err != nil {
		fail(err)
	}
	if opts.CheckConfig {
		fmt.Fprintf(os.Stderr, "%s: configuration file %s is valid (%s)\n", exe, opts.ConfigFile, opts.ConfigDigest())
		return
	}
	// What was given as a secret flag is seen by monitoring from here on.
	server.RedactArgs(os.Args)

	s, err := server.NewServer(opts)
	if err != nil {
		fail(err)
	}
	s.ConfigureLogger()
	if err := server.Run(s); err != nil {
		server.PrintAndDie(err.Error())
	}
	s.WaitForShutdown()
}

func fail(err error) {
	server.PrintAndDie(fmt.Sprintf("%s: %s", exe, err))
}

func printVersion() {
	fmt.Println(revision.Version(server.VERSION))
	os.Exit(0)
}

// usage prints the flags as upstream declared them, those with the same meaning
// on one line.
func usage(fs *flag.FlagSet) {
	fmt.Printf("Usage: %s [options]\n\nOptions:\n", exe)
	var (
		meanings []string
		names    = map[string][]string{}
	)
	fs.VisitAll(func(f *flag.Flag) {
		if names[f.Usage] == nil {
			meanings = append(meanings, f.Usage)
		}
		name := "-" + f.Name
		if len(f.Name) > 2 && f.Name != strings.ToUpper(f.Name) {
			name = "-" + name
		}
		names[f.Usage] = append(names[f.Usage], name)
	})
	slices.SortFunc(meanings, func(a, b string) int { return strings.Compare(names[a][0], names[b][0]) })
	for _, m := range meanings {
		fmt.Printf("    %-36s %s\n", strings.Join(names[m], ", "), m)
	}
	fmt.Println("\nThe listeners block of the configuration file is described in conf/README.md.")
	os.Exit(0)
}
