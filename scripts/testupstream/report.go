package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

func (v verdict) String() string {
	return [...]string{"passed", "skipped", "flaky", "environment", "OURS"}[v]
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// mostLines is what is shown of one test's output; the log has all of it.
const mostLines = 120

// summarize prints what failed and a table, and returns the number of failures
// that are ours.
func summarize(out io.Writer, reports []report, logDir string, verbose bool) int {
	for _, rep := range reports {
		for _, f := range rep.findings {
			if f.verdict != vOurs && !verbose {
				continue
			}
			fmt.Fprintf(out, "\n%s %s: %s\n", f.verdict, f.id, f.how)
			for line := range strings.Lines(lastLines(f.output, mostLines)) {
				fmt.Fprint(out, "    ", line)
			}
		}
	}

	fmt.Fprintln(out)
	var sum report
	sum.area = "all"
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(r report) {
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t\n", r.area, r.tests,
			r.count[vPassed]+r.count[vFlaky], r.count[vSkipped], r.count[vFlaky], r.count[vEnvironment], r.count[vOurs], r.took.Seconds())
	}
	fmt.Fprintln(tw, "area\ttests\tpassed\tskipped\tflaky\tenvironment\tours\tseconds\t")
	for _, r := range reports {
		row(r)
		sum.tests += r.tests
		sum.took += r.took
		for v, n := range r.count {
			sum.count[v] += n
		}
	}
	row(sum)
	tw.Flush()
	if sum.count[vEnvironment] > 0 {
		fmt.Fprintln(out, "environment: fails on the pristine module too")
	}
	if len(reports) > 0 && sum.count[vPassed]+sum.count[vSkipped] < sum.tests {
		fmt.Fprintln(out, "output of all runs:", logDir)
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", sum.count[vPassed]+sum.count[vFlaky], sum.count[vOurs])
	return sum.count[vOurs]
}

// lastLines cuts the head off, which is where the server's start is logged.
func lastLines(s string, n int) string {
	lines := slices.Collect(strings.Lines(s))
	if len(lines) <= n {
		return s
	}
	return fmt.Sprintf("(%d lines before)\n", len(lines)-n) + strings.Join(lines[len(lines)-n:], "")
}
