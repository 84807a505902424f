package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// tree is one of the two builds of upstream.
type tree string

const (
	patched  tree = "patched"
	pristine tree = "pristine"
)

// testID is a top-level test. pkg is its package's directory in the module,
// file the file that declares it (empty if unknown).
type testID struct {
	pkg, file, name string
}

func (t testID) String() string { return t.pkg + "/" + t.file + ":" + t.name }

type status int

const (
	failed status = iota
	passed
	skipped
)

// result is what one run said of one test.
type result struct {
	status status
	took   time.Duration
	// output is what the test printed; kept for failures only.
	output string
	// inOurCode is set when the binary died of a panic that went through code
	// of ours. Such a test is ours even if it passes the next time.
	inOurCode bool
}

// batch is one run of one test binary.
type batch struct {
	// results holds the tests that ended.
	results map[string]result
	// running holds the tests that had begun and not ended when the binary
	// died, as failures. Tests that are in neither map have not been run.
	running map[string]result
}

// runner runs tests, all of the same package, in one process.
type runner interface {
	run(ctx context.Context, on tree, pkg string, names []string, limit time.Duration) (batch, error)
	// has reports whether the tree has this test at all.
	has(ctx context.Context, on tree, id testID) (bool, error)
}

type verdict int

const (
	vPassed verdict = iota
	vSkipped
	vFlaky
	vEnvironment
	vOurs
)

// finding is a test that did not simply pass or skip.
type finding struct {
	id      testID
	verdict verdict
	// how says in words what the runs showed.
	how string
	// output is that of the last failing run on the patched tree.
	output string
}

type report struct {
	area     string
	tests    int
	count    [vOurs + 1]int
	findings []finding
	took     time.Duration
}

// judge runs an area and says of each test whether a failure is ours.
type judge struct {
	runner  runner
	retries int
	timeout time.Duration
	// both runs the whole area on the pristine tree, too.
	both    bool
	out     io.Writer
	verbose bool
}

func (j *judge) area(ctx context.Context, name string, ids []testID) (report, error) {
	start := time.Now()
	rep := report{area: name, tests: len(ids)}
	got, err := j.runAll(ctx, patched, ids)
	if err != nil {
		return rep, err
	}
	var reference map[testID]result
	if j.both {
		here, err := j.present(ctx, ids)
		if err != nil {
			return rep, err
		}
		if reference, err = j.runAll(ctx, pristine, here); err != nil {
			return rep, err
		}
	}
	for _, id := range ids {
		f, err := j.verdict(ctx, id, got[id], reference)
		if err != nil {
			return rep, err
		}
		rep.count[f.verdict]++
		if f.how != "" {
			rep.findings = append(rep.findings, f)
			fmt.Fprintf(j.out, "  %s %s: %s\n", f.verdict, id, f.how)
		} else if j.verbose {
			fmt.Fprintf(j.out, "  %s %s (%.2fs)\n", f.verdict, id, got[id].took.Seconds())
		}
	}
	rep.took = time.Since(start)
	return rep, nil
}

// present returns those of the tests that the pristine tree has.
func (j *judge) present(ctx context.Context, ids []testID) ([]testID, error) {
	var here []testID
	for _, id := range ids {
		ok, err := j.runner.has(ctx, pristine, id)
		if err != nil {
			return nil, err
		}
		if ok {
			here = append(here, id)
		}
	}
	return here, nil
}

// verdict runs a test again as often as it takes to know. The reference is the
// pristine tree's own run, nil if there was none.
func (j *judge) verdict(ctx context.Context, id testID, first result, reference map[testID]result) (finding, error) {
	f := finding{id: id, output: first.output}
	switch first.status {
	case passed:
		return f, nil
	case skipped:
		f.verdict = vSkipped
		if ref, ok := reference[id]; ok && ref.status == passed {
			f.verdict, f.how = vOurs, "skipped on the patched tree only"
		}
		return f, nil
	}
	if first.inOurCode {
		f.verdict, f.how = vOurs, "the server died in our code"
		return f, nil
	}

	runs := 1
	for range j.retries {
		again, err := j.alone(ctx, patched, id)
		if err != nil {
			return f, err
		}
		runs++
		if again.status != failed {
			f.verdict, f.how = vFlaky, fmt.Sprintf("failed, then passed alone (run %d)", runs)
			return f, nil
		}
		f.output = again.output
		if again.inOurCode {
			f.verdict, f.how = vOurs, "the server died in our code"
			return f, nil
		}
	}

	ok, err := j.runner.has(ctx, pristine, id)
	if err != nil {
		return f, err
	}
	if !ok {
		f.verdict, f.how = vOurs, fmt.Sprintf("failed %d of %d runs; the pristine tree has no such test", runs, runs)
		return f, nil
	}
	// As many runs there, to the last: one failure could be the exception.
	bad, there := 0, 0
	if ref, ok := reference[id]; ok {
		there++
		if ref.status == failed {
			bad++
		}
	}
	for ; there < runs; there++ {
		r, err := j.alone(ctx, pristine, id)
		if err != nil {
			return f, err
		}
		if r.status == failed {
			bad++
		}
	}
	f.verdict = vOurs
	if bad > 0 {
		f.verdict = vEnvironment
	}
	f.how = fmt.Sprintf("failed %d of %d runs; on the pristine tree %d of %d", runs, runs, bad, there)
	return f, nil
}

func (j *judge) alone(ctx context.Context, on tree, id testID) (result, error) {
	// One that hangs must not take its area's time again and again.
	limit := min(j.timeout, max(j.timeout/4, time.Minute))
	got, err := j.runUntilDone(ctx, on, id.pkg, []string{id.name}, limit)
	return got[id.name], err
}

// runAll runs the tests, one process for each package.
func (j *judge) runAll(ctx context.Context, on tree, ids []testID) (map[testID]result, error) {
	var pkgs []string
	names := map[string][]string{}
	for _, id := range ids {
		if names[id.pkg] == nil {
			pkgs = append(pkgs, id.pkg)
		}
		names[id.pkg] = append(names[id.pkg], id.name)
	}
	byPkg := map[string]map[string]result{}
	for _, pkg := range pkgs {
		got, err := j.runUntilDone(ctx, on, pkg, names[pkg], j.timeout)
		if err != nil {
			return nil, err
		}
		byPkg[pkg] = got
	}
	all := make(map[testID]result, len(ids))
	for _, id := range ids {
		all[id] = byPkg[id.pkg][id.name]
	}
	return all, nil
}

// runUntilDone returns a result for each name. A binary that dies takes the
// tests along that were still to come: those are run in another process. Each
// round ends at least one test, or they are run one by one.
func (j *judge) runUntilDone(ctx context.Context, on tree, pkg string, names []string, limit time.Duration) (map[string]result, error) {
	got := make(map[string]result, len(names))
	for todo := names; len(todo) > 0; {
		b, err := j.runner.run(ctx, on, pkg, todo, limit)
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var rest []string
		for _, n := range todo {
			if r, ok := b.results[n]; ok {
				got[n] = r
			} else if r, ok := b.running[n]; ok {
				r.status = failed
				got[n] = r
			} else {
				rest = append(rest, n)
			}
		}
		switch {
		case len(rest) == 0:
		case len(rest) < len(todo):
			if j.verbose {
				fmt.Fprintf(j.out, "  the binary died: %s; %d tests are still to run\n", strings.Join(keys(b.running), ", "), len(rest))
			}
		case len(todo) == 1:
			got[todo[0]] = result{output: "the binary ended without a word on this test; its output is in the log\n"}
			rest = nil
		default:
			for _, n := range todo {
				one, err := j.runUntilDone(ctx, on, pkg, []string{n}, limit)
				if err != nil {
					return nil, err
				}
				got[n] = one[n]
			}
			rest = nil
		}
		todo = rest
	}
	return got, nil
}
