package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// goRunner builds the test binaries and runs them. Each tree's tests run in a
// copy of that tree, as some leave files where they run.
type goRunner struct {
	ws        *workspace
	trees     map[tree]*source
	test2json string
	dir       string // build/testupstream
	tmpDir    string
	logDir    string
	runs      int
}

// source is a tree that is ready to be tested.
type source struct {
	dir  string // where it is built
	work string // where its tests run
	env  []string
	bins map[string]string          // by package
	has  map[string]map[string]bool // package, test
	// added are the files that the patched tree has and upstream has not.
	added []string
}

func newGoRunner(ctx context.Context, ws *workspace) (*goRunner, error) {
	r := &goRunner{ws: ws, trees: map[tree]*source{}, dir: ws.path("testupstream")}
	r.logDir = filepath.Join(r.dir, "log")
	r.tmpDir = filepath.Join(r.dir, "tmp")
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return nil, err
	}
	if err := lock(filepath.Join(r.dir, "lock")); err != nil {
		return nil, fmt.Errorf("is another run of this tool under way? %w", err)
	}
	// -n prints where the tool is, and builds it if it is not there yet.
	var err error
	if r.test2json, err = goOutput(ctx, ws.root, nil, "tool", "-n", "test2json"); err != nil {
		return nil, err
	}
	// A run that was killed left its own.
	for _, dir := range []string{r.logDir, r.tmpDir} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *goRunner) close() { os.RemoveAll(r.tmpDir) }

// source finds the tree and copies it for the run, the first time.
func (r *goRunner) source(ctx context.Context, on tree) (*source, error) {
	if src := r.trees[on]; src != nil {
		return src, nil
	}
	src := &source{bins: map[string]string{}, has: map[string]map[string]bool{}}
	var err error
	switch on {
	case patched:
		if src.dir, err = r.ws.patchedDir(ctx); err != nil {
			return nil, err
		}
		module, err := r.ws.moduleDir(ctx)
		if err != nil {
			return nil, err
		}
		if src.added, err = addedFiles(src.dir, module); err != nil {
			return nil, err
		}
	case pristine:
		src.env = offWorkspace
		if src.dir, err = r.ws.pristineDir(ctx); err != nil {
			return nil, err
		}
	}
	src.work = filepath.Join(r.tmpDir, string(on))
	if err := copyTree(src.work, src.dir); err != nil {
		return nil, err
	}
	r.trees[on] = src
	return src, nil
}

// addedFiles lists the Go files of dir that are not in base.
func addedFiles(dir, base string) ([]string, error) {
	var added []string
	files, err := filepath.Glob(filepath.Join(dir, "server", "*.go"))
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(base, "server", filepath.Base(f))); errors.Is(err, os.ErrNotExist) {
			added = append(added, "server/"+filepath.Base(f))
		}
	}
	return added, err
}

// binary builds the tests of a package, which the build cache makes quick when
// nothing changed, and asks the binary what it can run.
func (r *goRunner) binary(ctx context.Context, on tree, pkg string) (*source, error) {
	src, err := r.source(ctx, on)
	if err != nil || src.bins[pkg] != "" {
		return src, err
	}
	bin := filepath.Join(r.dir, string(on), strings.ReplaceAll(pkg, "/", "_")+".test")
	dir := r.ws.root
	if on == pristine {
		dir = src.dir
	}
	start := time.Now()
	if _, err := goOutput(ctx, dir, src.env, "test", "-c", "-vet=off", "-o", bin, upstream+"/"+pkg); err != nil {
		return nil, err
	}
	if took := time.Since(start); took > 5*time.Second {
		fmt.Fprintf(r.ws.out, "built the tests of %s, %s tree, in %.0f s\n", pkg, on, took.Seconds())
	}
	cmd := exec.CommandContext(ctx, bin, "-test.list", ".")
	cmd.Dir = filepath.Join(src.work, pkg)
	cmd.Env = r.env(cmd.Dir)
	list, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s -test.list: %w\n%s", bin, err, list)
	}
	src.has[pkg] = map[string]bool{}
	for name := range strings.FieldsSeq(string(list)) {
		if !strings.HasPrefix(name, "Benchmark") {
			src.has[pkg][name] = true
		}
	}
	src.bins[pkg] = bin
	return src, nil
}

// testsOf builds what the areas need and returns their tests, by area. The
// sources say in which file a test is, the binary which tests there are.
func (r *goRunner) testsOf(ctx context.Context, on tree, areas []area) (map[string][]testID, error) {
	src, err := r.source(ctx, on)
	if err != nil {
		return nil, err
	}
	scanned, err := scanTests(src.dir)
	if err != nil {
		return nil, err
	}
	byArea := assign(upstreamAreas, scanned)
	need := map[string]bool{}
	for _, a := range areas {
		for _, t := range byArea[a.name] {
			need[t.pkg] = true
		}
	}
	var tests []testID
	for _, pkg := range keys(need) {
		if _, err := r.binary(ctx, on, pkg); err != nil {
			return nil, err
		}
		unseen := map[string]bool{}
		for name := range src.has[pkg] {
			unseen[name] = true
		}
		for _, t := range scanned {
			if t.pkg == pkg && unseen[t.name] {
				tests = append(tests, t)
				delete(unseen, t.name)
			}
		}
		for _, name := range keys(unseen) {
			tests = append(tests, testID{pkg: pkg, name: name})
		}
	}
	return assign(upstreamAreas, tests), nil
}

func (r *goRunner) has(ctx context.Context, on tree, id testID) (bool, error) {
	src, err := r.binary(ctx, on, id.pkg)
	if err != nil {
		return false, err
	}
	return src.has[id.pkg][id.name], nil
}

// env is that of a test process: no server's trace may be cut, and what a test
// leaves behind goes away with the run.
func (r *goRunner) env(dir string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GOTRACEBACK=")
	})
	return append(env, "TMPDIR="+r.tmpDir, "PWD="+dir)
}

func (r *goRunner) run(ctx context.Context, on tree, pkg string, names []string, limit time.Duration) (batch, error) {
	src, err := r.binary(ctx, on, pkg)
	if err != nil {
		return batch{}, err
	}
	r.runs++
	log, err := os.Create(filepath.Join(r.logDir, fmt.Sprintf("%04d-%s-%s-%s.txt", r.runs, on, strings.ReplaceAll(pkg, "/", "_"), logName(names))))
	if err != nil {
		return batch{}, err
	}
	defer log.Close()

	// The binary ends by itself at the limit and shows where it hangs. The
	// other limit is for one that cannot even do that.
	hard, cancel := context.WithTimeout(ctx, limit+30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(hard, src.bins[pkg],
		"-test.run=^("+strings.Join(names, "|")+")$", "-test.v=test2json", "-test.timeout="+limit.String())
	cmd.Dir = filepath.Join(src.work, pkg)
	cmd.Env = r.env(cmd.Dir)
	ownGroup(cmd)
	cmd.WaitDelay = 10 * time.Second

	convert := exec.Command(r.test2json, "-t")
	in, err := convert.StdinPipe()
	if err != nil {
		return batch{}, err
	}
	events, err := convert.StdoutPipe()
	if err != nil {
		return batch{}, err
	}
	convert.Stderr = os.Stderr
	ownGroup(convert)
	if err := convert.Start(); err != nil {
		return batch{}, err
	}
	both := io.MultiWriter(log, in)
	cmd.Stdout, cmd.Stderr = both, both
	done := make(chan error, 1)
	go func() {
		err := cmd.Run()
		in.Close()
		done <- err
	}()
	b, parseErr := parseEvents(events)
	runErr := <-done
	convertErr := convert.Wait()

	// A binary that ran and failed is a result; one that could not run is not.
	var exit *exec.ExitError
	if runErr != nil && !errors.As(runErr, &exit) && !errors.Is(runErr, exec.ErrWaitDelay) && hard.Err() == nil {
		return batch{}, runErr
	}
	for _, m := range []map[string]result{b.results, b.running} {
		for name, res := range m {
			if res.status == failed {
				res.inOurCode = panicsIn(res.output, src.added)
				m[name] = res
			}
		}
	}
	return b, cmp.Or(parseErr, convertErr)
}

func logName(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%d-tests", len(names))
}

// parseEvents reads what test2json prints. Output of a subtest is that of its
// test.
func parseEvents(events io.Reader) (batch, error) {
	b := batch{results: map[string]result{}, running: map[string]result{}}
	output := map[string]*bytes.Buffer{}
	paused := map[string]bool{}
	dec := json.NewDecoder(bufio.NewReader(events))
	for {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return b, fmt.Errorf("reading test2json: %w", err)
		}
		top, _, sub := strings.Cut(e.Test, "/")
		if top == "" {
			continue
		}
		if e.Action == "output" {
			if out := output[top]; out != nil {
				out.WriteString(e.Output)
			}
			continue
		}
		if sub {
			continue
		}
		switch e.Action {
		case "run":
			output[top] = &bytes.Buffer{}
		case "pause":
			paused[top] = true
		case "cont":
			delete(paused, top)
		case "pass", "fail", "skip":
			res := result{took: time.Duration(e.Elapsed * float64(time.Second))}
			switch e.Action {
			case "pass":
				res.status = passed
			case "skip":
				res.status = skipped
			case "fail":
				res.status = failed
				res.output = output[top].String()
			}
			b.results[top] = res
			delete(output, top)
		}
	}
	for name, out := range output {
		if !paused[name] {
			b.running[name] = result{status: failed, output: out.String()}
		}
	}
	return b, nil
}

var (
	died = regexp.MustCompile(`(?m)^(?:panic: |fatal error: )`)
	// ourPackages is how a trace shows the functions of our packages.
	ourPackages = regexp.MustCompile(`(?m)^nats-trusted-proxy/`)
)

// panicsIn reports whether the binary died in our packages or in one of the
// files. Only the first goroutine of the trace is looked at, the one that died.
func panicsIn(output string, files []string) bool {
	at := died.FindStringIndex(output)
	if at == nil || strings.HasPrefix(output[at[0]:], "panic: test timed out") {
		return false
	}
	_, trace, ok := strings.Cut(output[at[0]:], "\ngoroutine ")
	if !ok {
		return false
	}
	trace, _, _ = strings.Cut(trace, "\n\n")
	if ourPackages.MatchString(trace) {
		return true
	}
	return slices.ContainsFunc(files, func(f string) bool { return strings.Contains(trace, "/"+f+":") })
}
