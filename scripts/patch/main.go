// The patch command turns the upstream nats-server that go.mod requires into the
// one this project builds: a copy under build/, with the hooks and the glue of
// server/_upstream, and a go.work that puts it in upstream's place. No upstream
// source is kept in the repository.
//
// Run it as
//
//	go run ./scripts/patch MODE
//
// Package hooks says how hooks are written.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

const usage = `usage: go run ./scripts/patch MODE

  apply [-upstream V] [-out DIR]   write the patched tree and its go.work
  check [-upstream V ...]          see whether every hook applies, and its test exists
  diff  [-upstream V]              print what the patch does, as a unified diff
  drift OLD NEW                    say what an upgrade of upstream means to each hook
  stats [-upstream V]              count hooks, lines and files

V is an upstream version such as v2.14.9; the default is the one go.mod requires.
apply writes build/nats-server for that one and build/V/nats-server for others,
with a go.work at the root of the repository or in build/V:

  go build .
  GOWORK=$PWD/build/V/go.work go build .

How hooks are written: go doc ./scripts/patch/hooks
`

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// errUsage is a call that the usage text answers.
var errUsage = errors.New("wrong usage")

// run is main with its surroundings made explicit.
func run(args []string, stdout, stderr io.Writer) int {
	root, err := findRoot(".")
	if err == nil {
		t := &tool{root: root, fetch: fetcher(root), out: stdout}
		err = t.run(args)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "patch: %v\n%s", err, usage)
		return 2
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "patch: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return 1
}

// tool is the command on one repository.
type tool struct {
	root string
	// fetch finds an upstream version on this machine.
	fetch func(version string) (module, error)
	out   io.Writer
}

// versions is a flag that can be given several times.
type versions []string

func (v *versions) String() string { return strings.Join(*v, " ") }

// Set adds a version.
func (v *versions) Set(s string) error {
	*v = append(*v, s)
	return nil
}

// run dispatches one mode.
func (t *tool) run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no mode", errUsage)
	}
	mode, args := args[0], args[1:]
	if mode == "help" || mode == "-h" || mode == "--help" {
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet(mode, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var (
		upstream versions
		out      string
	)
	if mode != "drift" {
		flags.Var(&upstream, "upstream", "upstream version")
	}
	if mode == "apply" {
		flags.StringVar(&out, "out", "", "where the tree goes")
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	want := 0
	if mode == "drift" {
		want = 2
	}
	if flags.NArg() != want || len(upstream) > 1 && mode != "check" {
		return fmt.Errorf("%w of %s", errUsage, mode)
	}
	required, err := readGoMod(t.root)
	if err != nil {
		return err
	}
	if len(upstream) == 0 {
		upstream = versions{required.Upstream}
	}
	switch mode {
	case "apply":
		return t.apply(required, upstream[0], out)
	case "check":
		return t.check(upstream)
	case "diff":
		return t.diff(upstream[0])
	case "drift":
		return t.drift(flags.Arg(0), flags.Arg(1))
	case "stats":
		return t.stats(upstream[0])
	}
	return fmt.Errorf("%w: no mode %q", errUsage, mode)
}
