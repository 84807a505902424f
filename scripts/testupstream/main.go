// Command testupstream runs upstream's own tests on the patched tree and tells
// a failure of ours from a flaky one.
//
//	go run ./scripts/testupstream             the areas that the hooks touch
//	go run ./scripts/testupstream -all        every test of every package
//	go run ./scripts/testupstream -areas tls,proxy
//	go run ./scripts/testupstream -list
//
// A test that fails on the patched tree is run again, alone. If it passes then,
// it is flaky. If it never does, it is run as often on the pristine module: when
// it fails there too, the machine is the cause ("environment"), otherwise we
// are ("ours"), and the exit status is 1. Anything that keeps the tests from
// running at all is exit status 2.
//
// The patched tree is build/nats-server, built through go.work (both made by
// `go run ./scripts/patch apply`). The pristine one is a copy of the module in
// build/pristine. What the tests print goes to build/testupstream/log.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	areas    string
	all      bool
	list     bool
	pristine bool
	verbose  bool
	retries  int
	timeout  time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.areas, "areas", "", "run these `areas`, separated by commas (see -list)")
	flag.BoolVar(&o.all, "all", false, "run every area")
	flag.BoolVar(&o.list, "list", false, "show the areas, with -v their tests too, and run nothing")
	flag.BoolVar(&o.pristine, "pristine", false, "run all of it on the pristine tree too, not only what fails")
	flag.DurationVar(&o.timeout, "timeout", 0, "longest run of an area (default: the area's own limit)")
	flag.IntVar(&o.retries, "retries", 2, "how often a failed test is run again")
	flag.BoolVar(&o.verbose, "v", false, "show each test, and what flaky ones printed")
	flag.Parse()
	if flag.NArg() > 0 || o.retries < 0 || (o.all && o.areas != "") {
		flag.Usage()
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ours, err := run(ctx, o, os.Stdout)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "testupstream:", err)
		os.Exit(2)
	case ours > 0:
		os.Exit(1)
	}
}

// run returns the number of failures that are ours.
func run(ctx context.Context, o options, out io.Writer) (int, error) {
	areas, err := chooseAreas(upstreamAreas, o.areas, o.all)
	if err != nil {
		return 0, err
	}
	ws, err := openWorkspace(ctx, out)
	if err != nil {
		return 0, err
	}
	if o.list {
		return 0, listAreas(ctx, ws, o, out)
	}

	r, err := newGoRunner(ctx, ws)
	if err != nil {
		return 0, err
	}
	defer r.close()
	tests, err := r.testsOf(ctx, patched, areas)
	if err != nil {
		return 0, err
	}

	warnOfPort(out)

	var reports []report
	for _, a := range areas {
		ids := tests[a.name]
		if len(ids) == 0 {
			return 0, fmt.Errorf("area %s: no test of upstream %s matches %q: give it another expression in scripts/testupstream/areas.go", a.name, ws.version, a.match)
		}
		fmt.Fprintf(out, "%s: %d tests of %s\n", a.name, len(ids), a.about)
		limit := a.timeout
		if o.timeout > 0 {
			limit = o.timeout
		}
		j := judge{runner: r, retries: o.retries, timeout: limit, both: o.pristine, out: out, verbose: o.verbose}
		rep, err := j.area(ctx, a.name, ids)
		if ctx.Err() != nil {
			return 0, errors.New("interrupted")
		}
		if err != nil {
			return 0, fmt.Errorf("area %s: %w", a.name, err)
		}
		reports = append(reports, rep)
		fmt.Fprintf(out, "  %d passed, %d failed, in %.0f s\n", rep.count[vPassed]+rep.count[vFlaky], rep.count[vOurs], rep.took.Seconds())
	}
	return summarize(out, reports, r.logDir, o.verbose), nil
}

// warnOfPort says that the machine is not free: many of upstream's tests listen
// on the default port.
func warnOfPort(out io.Writer) {
	const addr = "127.0.0.1:4222"
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Fprintf(out, "warning: %v: tests that need that port will fail\n", err)
		return
	}
	l.Close()
}

func listAreas(ctx context.Context, ws *workspace, o options, out io.Writer) error {
	dir, err := ws.moduleDir(ctx)
	if err != nil {
		return err
	}
	tests, err := scanTests(dir)
	if err != nil {
		return err
	}
	byArea := assign(upstreamAreas, tests)
	for _, a := range upstreamAreas {
		when := "-all"
		if a.hooks {
			when = "default"
		}
		fmt.Fprintf(out, "%-16s %5d  %-8s %s\n", a.name, len(byArea[a.name]), when, a.about)
		if o.verbose {
			for _, t := range byArea[a.name] {
				fmt.Fprintf(out, "\t%s\n", t)
			}
		}
	}
	return nil
}

// chooseAreas picks the named areas, or all, or by default those that the hooks
// touch, in the order of the table.
func chooseAreas(table []area, names string, all bool) ([]area, error) {
	wanted := func(a area) bool { return all || a.hooks }
	if names != "" {
		asked := strings.Split(names, ",")
		for _, n := range asked {
			if !slices.ContainsFunc(table, func(a area) bool { return a.name == n }) {
				return nil, fmt.Errorf("no area is called %q; -list shows them", n)
			}
		}
		wanted = func(a area) bool { return slices.Contains(asked, a.name) }
	}
	var chosen []area
	for _, a := range table {
		if wanted(a) {
			chosen = append(chosen, a)
		}
	}
	return chosen, nil
}
