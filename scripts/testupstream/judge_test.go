package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeRunner plays what is written down for each test, one word a run: pass,
// fail, skip, die (the binary dies in this test), gone (it ends without a word
// on it) or ours (it dies in our code). The last word is repeated; no word
// means pass.
type fakeRunner struct {
	t       *testing.T
	scripts map[tree]map[string][]string
	// missing are the tests that the pristine tree has not.
	missing []string
	// log is what was run, as "patched A B".
	log []string
}

func (f *fakeRunner) has(_ context.Context, on tree, id testID) (bool, error) {
	return on == patched || !slices.Contains(f.missing, id.name), nil
}

func (f *fakeRunner) run(_ context.Context, on tree, pkg string, names []string, limit time.Duration) (batch, error) {
	f.log = append(f.log, string(on)+" "+strings.Join(names, " "))
	if limit <= 0 || pkg == "" {
		f.t.Errorf("run of %v with limit %v, package %q", names, limit, pkg)
	}
	b := batch{results: map[string]result{}, running: map[string]result{}}
	for _, n := range names {
		word := "pass"
		if script := f.scripts[on][n]; len(script) > 0 {
			word = script[0]
			if len(script) > 1 {
				f.scripts[on][n] = script[1:]
			}
		}
		switch word {
		case "pass":
			b.results[n] = result{status: passed}
		case "skip":
			b.results[n] = result{status: skipped}
		case "fail":
			b.results[n] = result{status: failed, output: n + " failed on " + string(on) + "\n"}
		case "die", "ours":
			b.running[n] = result{status: failed, output: "panic: " + n + "\n", inOurCode: word == "ours"}
			return b, nil
		case "gone":
			return b, nil
		default:
			return b, errors.New(word)
		}
	}
	return b, nil
}

func TestUpstreamJudge(t *testing.T) {
	type script = map[string][]string
	for _, c := range []struct {
		name              string
		patched, pristine script
		missing           []string
		retries           int
		both              bool
		want              map[string]verdict // those that are not vPassed
		how               string             // part of what is said of A
		log               []string
	}{
		{
			name: "all pass", retries: 2,
			log: []string{"patched A B C"},
		},
		{
			name: "skipped", retries: 2,
			patched: script{"B": {"skip"}},
			want:    map[string]verdict{"B": vSkipped},
			log:     []string{"patched A B C"},
		},
		{
			name: "flaky: passes on the second retry", retries: 2,
			patched: script{"A": {"fail", "fail", "pass"}},
			want:    map[string]verdict{"A": vFlaky},
			how:     "passed alone (run 3)",
			log:     []string{"patched A B C", "patched A", "patched A"},
		},
		{
			name: "ours: fails on the patched tree only", retries: 2,
			patched: script{"A": {"fail"}},
			want:    map[string]verdict{"A": vOurs},
			how:     "failed 3 of 3 runs; on the pristine tree 0 of 3",
			log: []string{"patched A B C", "patched A", "patched A",
				"pristine A", "pristine A", "pristine A"},
		},
		{
			name: "environment: fails on both", retries: 1,
			patched: script{"A": {"fail"}}, pristine: script{"A": {"pass", "fail"}},
			want: map[string]verdict{"A": vEnvironment},
			how:  "failed 2 of 2 runs; on the pristine tree 1 of 2",
			log:  []string{"patched A B C", "patched A", "pristine A", "pristine A"},
		},
		{
			name: "no retries", retries: 0,
			patched: script{"A": {"fail", "pass"}},
			want:    map[string]verdict{"A": vOurs},
			log:     []string{"patched A B C", "pristine A"},
		},
		{
			name: "a test that only the patched tree has", retries: 1,
			patched: script{"A": {"fail"}}, missing: []string{"A"},
			want: map[string]verdict{"A": vOurs},
			how:  "has no such test",
			log:  []string{"patched A B C", "patched A"},
		},
		{
			name: "crash: the others are still run", retries: 1,
			patched: script{"B": {"die", "pass"}},
			want:    map[string]verdict{"B": vFlaky},
			log:     []string{"patched A B C", "patched C", "patched B"},
		},
		{
			name: "crash each time", retries: 1,
			patched: script{"B": {"die"}},
			want:    map[string]verdict{"B": vOurs},
			log:     []string{"patched A B C", "patched C", "patched B", "pristine B", "pristine B"},
		},
		{
			name: "two crashes, one after the other", retries: 1,
			patched: script{"A": {"die", "pass"}, "B": {"die", "pass"}},
			want:    map[string]verdict{"A": vFlaky, "B": vFlaky},
			log:     []string{"patched A B C", "patched B C", "patched C", "patched A", "patched B"},
		},
		{
			name: "a crash in our code is never flaky", retries: 2,
			patched: script{"A": {"ours", "pass"}},
			want:    map[string]verdict{"A": vOurs},
			how:     "died in our code",
			log:     []string{"patched A B C", "patched B C"},
		},
		{
			name: "a crash in our code on a retry", retries: 2,
			patched: script{"A": {"fail", "ours", "pass"}},
			want:    map[string]verdict{"A": vOurs},
			how:     "died in our code",
			log:     []string{"patched A B C", "patched A"},
		},
		{
			name: "no word on any test: one by one", retries: 1,
			patched: script{"A": {"gone"}},
			want:    map[string]verdict{"A": vOurs},
			log: []string{"patched A B C", "patched A", "patched B", "patched C",
				"patched A", "pristine A", "pristine A"},
		},
		{
			name: "both trees in full", retries: 1, both: true,
			patched: script{"A": {"fail"}, "B": {"skip"}, "C": {"skip"}}, pristine: script{"A": {"fail", "pass"}, "C": {"skip"}},
			want: map[string]verdict{"A": vEnvironment, "B": vOurs, "C": vSkipped},
			log:  []string{"patched A B C", "pristine A B C", "patched A", "pristine A"},
		},
		{
			name: "both trees in full, but for a test of ours", retries: 1, both: true,
			missing: []string{"B"},
			log:     []string{"patched A B C", "pristine A C"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeRunner{t: t, missing: c.missing, scripts: map[tree]map[string][]string{patched: c.patched, pristine: c.pristine}}
			var out bytes.Buffer
			j := judge{runner: f, retries: c.retries, timeout: time.Minute, both: c.both, out: &out}
			ids := []testID{{"server", "x_test.go", "A"}, {"server", "x_test.go", "B"}, {"server", "y_test.go", "C"}}
			rep, err := j.area(t.Context(), "area", ids)
			if err != nil {
				t.Fatal(err)
			}
			var count [vOurs + 1]int
			for _, id := range ids {
				count[c.want[id.name]]++
			}
			if rep.count != count {
				t.Errorf("count is %v, want %v", rep.count, count)
			}
			for _, f := range rep.findings {
				if f.verdict != c.want[f.id.name] {
					t.Errorf("%s is %v, want %v", f.id, f.verdict, c.want[f.id.name])
				}
			}
			if !strings.Contains(out.String(), c.how) {
				t.Errorf("it says\n%s\nwithout %q", &out, c.how)
			}
			if !slices.Equal(f.log, c.log) {
				t.Errorf("runs:\n%q\nwant\n%q", f.log, c.log)
			}
		})
	}
}

// Tests of one area may be in several packages, each with its own binary, and
// tests of two packages may have the same name.
func TestUpstreamJudgePackages(t *testing.T) {
	f := &fakeRunner{t: t}
	j := judge{runner: f, timeout: time.Minute, out: &bytes.Buffer{}}
	rep, err := j.area(t.Context(), "area", []testID{{"server", "a_test.go", "A"}, {"test", "a_test.go", "A"}, {"server", "a_test.go", "B"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"patched A B", "patched A"}; !slices.Equal(f.log, want) {
		t.Errorf("runs: %q, want %q", f.log, want)
	}
	if rep.count[vPassed] != 3 {
		t.Errorf("count: %v", rep.count)
	}
}

func TestUpstreamJudgeErrors(t *testing.T) {
	f := &fakeRunner{t: t, scripts: map[tree]map[string][]string{patched: {"A": {"no such binary"}}}}
	j := judge{runner: f, timeout: time.Minute, out: &bytes.Buffer{}}
	ids := []testID{{"server", "a_test.go", "A"}}
	if _, err := j.area(t.Context(), "area", ids); err == nil || err.Error() != "no such binary" {
		t.Errorf("a binary that cannot run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.scripts = nil
	if _, err := j.area(ctx, "area", ids); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestUpstreamSummary(t *testing.T) {
	rep := report{area: "tls", tests: 10, count: [...]int{vPassed: 5, vSkipped: 1, vFlaky: 2, vEnvironment: 1, vOurs: 1}, took: 3 * time.Second,
		findings: []finding{
			{testID{"server", "a_test.go", "TestOurs"}, vOurs, "failed 3 of 3 runs", "it broke\n"},
			{testID{"server", "a_test.go", "TestFlaky"}, vFlaky, "passed alone", "it shook\n"},
		}}
	var out bytes.Buffer
	if n := summarize(&out, []report{rep, {area: "info", tests: 4, count: [...]int{vPassed: 4, vOurs: 0}}}, "LOG", false); n != 1 {
		t.Errorf("%d failures of ours, want 1", n)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "11 passed, 1 failed" {
		t.Errorf("last line: %q", last)
	}
	for _, want := range []string{"OURS server/a_test.go:TestOurs: failed 3 of 3 runs\n    it broke\n", "LOG"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "it shook") {
		t.Errorf("the output of a flaky test is shown without -v:\n%s", &out)
	}
	var row []string
	for _, l := range lines {
		if f := strings.Fields(l); len(f) > 0 && f[0] == "tls" {
			row = f
		}
	}
	if want := []string{"tls", "10", "7", "1", "2", "1", "1", "3"}; !slices.Equal(row, want) {
		t.Errorf("row %v, want %v", row, want)
	}
}

func TestUpstreamLastLines(t *testing.T) {
	if got := lastLines("a\nb\nc\n", 3); got != "a\nb\nc\n" {
		t.Errorf("got %q", got)
	}
	if got := lastLines("a\nb\nc\n", 2); got != "(1 lines before)\nb\nc\n" {
		t.Errorf("got %q", got)
	}
}
