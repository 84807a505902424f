package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// events is what test2json printed for a binary that died in TestC while the
// parallel TestP was still waiting for its turn.
const events = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/sub"}
{"Action":"output","Test":"TestA/sub","Output":"broken\n"}
{"Action":"fail","Test":"TestA/sub","Elapsed":0.1}
{"Action":"output","Test":"TestA","Output":"--- FAIL: TestA (0.25s)\n"}
{"Action":"fail","Test":"TestA","Elapsed":0.25}
{"Action":"run","Test":"TestB"}
{"Action":"pass","Test":"TestB","Elapsed":1}
{"Action":"run","Test":"TestS"}
{"Action":"skip","Test":"TestS","Elapsed":0}
{"Action":"run","Test":"TestP"}
{"Action":"pause","Test":"TestP"}
{"Action":"run","Test":"TestQ"}
{"Action":"pause","Test":"TestQ"}
{"Action":"cont","Test":"TestQ"}
{"Action":"run","Test":"TestC"}
{"Action":"output","Test":"TestC","Output":"panic: oh\n"}
{"Action":"output","Output":"FAIL\n"}
{"Action":"fail","Elapsed":2}
`

func TestUpstreamParseEvents(t *testing.T) {
	b, err := parseEvents(strings.NewReader(events))
	if err != nil {
		t.Fatal(err)
	}
	if got := keys(b.results); !slices.Equal(got, []string{"TestA", "TestB", "TestS"}) {
		t.Errorf("results of %v", got)
	}
	if got := keys(b.running); !slices.Equal(got, []string{"TestC", "TestQ"}) {
		t.Errorf("running: %v", got)
	}
	if got, want := b.results["TestA"], (result{status: failed, took: 250 * time.Millisecond, output: "=== RUN   TestA\nbroken\n--- FAIL: TestA (0.25s)\n"}); got != want {
		t.Errorf("TestA: %+v, want %+v", got, want)
	}
	if b.results["TestB"].status != passed || b.results["TestS"].status != skipped {
		t.Errorf("TestB, TestS: %+v", b.results)
	}
	if out := b.running["TestC"].output; out != "panic: oh\n" {
		t.Errorf("output of TestC: %q", out)
	}
	if _, err := parseEvents(strings.NewReader("{")); err == nil {
		t.Error("half an event is no error")
	}
}

func TestUpstreamPanicInOurCode(t *testing.T) {
	const (
		inPackage = "panic: oh\n\ngoroutine 7 [running]:\nnats-trusted-proxy/server/accept.(*Loop).serve(0x1)\n\t/src/accept.go:9 +0x1\n\ngoroutine 8 [select]:\n"
		inGlue    = "fatal error: all bad\n[signal SIGSEGV]\n\ngoroutine 7 [running]:\ngithub.com/nats-io/nats-server/v2/server.startListeners(0x1)\n\t/src/build/nats-server/server/listeners.go:9 +0x1\n"
		elsewhere = "panic: oh\n\ngoroutine 7 [running]:\ngithub.com/nats-io/nats-server/v2/server.x(0x1)\n\t/src/build/nats-server/server/client.go:9 +0x1\n\ngoroutine 8 [select]:\nnats-trusted-proxy/server/accept.(*Loop).serve(0x1)\n"
		timeout   = "panic: test timed out after 1s\n\ngoroutine 7 [running]:\nnats-trusted-proxy/server/accept.x()\n"
		noPanic   = "x_test.go:1: got nats-trusted-proxy/\n"
	)
	for _, c := range []struct {
		output string
		want   bool
	}{{inPackage, true}, {inGlue, true}, {elsewhere, false}, {timeout, false}, {noPanic, false}} {
		if got := panicsIn(c.output, []string{"server/listeners.go"}); got != c.want {
			t.Errorf("got %v for\n%s", got, c.output)
		}
	}
}

// The TestPlay… are what TestUpstreamRunner runs: this test binary plays
// upstream's, in a process of its own.
func TestPlayPass(t *testing.T) { playing(t) }
func TestPlayFail(t *testing.T) { playing(t); t.Error("as it should") }
func TestPlayDie(t *testing.T)  { playing(t); go panic("away"); select {} }
func TestPlayHang(t *testing.T) { playing(t); time.Sleep(time.Minute) }
func TestPlayWhere(t *testing.T) {
	playing(t)
	wd, err := os.Getwd()
	t.Errorf("in %s, %v; TMPDIR %s; GOTRACEBACK %q", wd, err, os.Getenv("TMPDIR"), os.Getenv("GOTRACEBACK"))
}

// TestPlayDeaf starts a process that outlives it, and never ends itself.
func TestPlayDeaf(t *testing.T) {
	playing(t)
	cmd := exec.Command("sleep", "300")
	cmd.Stdout = os.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("child %d\n", cmd.Process.Pid)
	time.Sleep(time.Minute)
}

func playing(t *testing.T) {
	if os.Getenv("UPSTREAM_PLAY") == "" {
		t.Skip("run by TestUpstreamRunner")
	}
}

func playRunner(t *testing.T) *goRunner {
	t.Helper()
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	test2json, err := goOutput(t.Context(), ".", nil, "tool", "-n", "test2json")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "server"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UPSTREAM_PLAY", "1")
	return &goRunner{
		test2json: test2json,
		tmpDir:    t.TempDir(),
		logDir:    t.TempDir(),
		trees:     map[tree]*source{patched: {work: work, bins: map[string]string{"server": bin}}},
	}
}

func TestUpstreamRunner(t *testing.T) {
	t.Setenv("GOTRACEBACK", "none")
	r := playRunner(t)
	play := func(limit time.Duration, names ...string) batch {
		t.Helper()
		b, err := r.run(t.Context(), patched, "server", names, limit)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}

	b := play(time.Minute, "TestPlayPass", "TestPlayFail", "TestPlayWhere")
	if b.results["TestPlayPass"].status != passed || b.results["TestPlayFail"].status != failed || len(b.running) > 0 {
		t.Errorf("pass, fail: %+v", b)
	}
	if out := b.results["TestPlayFail"].output; !strings.Contains(out, "as it should") {
		t.Errorf("output of the failure: %q", out)
	}
	want := fmt.Sprintf("in %s, <nil>; TMPDIR %s; GOTRACEBACK %q", filepath.Join(r.trees[patched].work, "server"), r.tmpDir, "")
	if out := b.results["TestPlayWhere"].output; !strings.Contains(out, want) {
		t.Errorf("the test ran %q, want %q", out, want)
	}

	b = play(time.Minute, "TestPlayFail", "TestPlayDie", "TestPlayHang")
	if keys(b.results)[0] != "TestPlayFail" || !slices.Equal(keys(b.running), []string{"TestPlayDie"}) {
		t.Errorf("the binary died: %+v", b)
	}
	if died := b.running["TestPlayDie"]; !died.inOurCode || !strings.Contains(died.output, "panic: away") {
		// The test is part of our module, so the trace is of our code.
		t.Errorf("in our code: %+v", died)
	}

	b = play(time.Second, "TestPlayHang", "TestPlayWhere")
	if out := b.running["TestPlayHang"].output; !strings.Contains(out, "test timed out after 1s") || len(b.results) > 0 {
		t.Errorf("the binary hung: %+v", b)
	}

	logs, err := os.ReadDir(r.logDir)
	if err != nil || len(logs) != 3 || logs[2].Name() != "0003-patched-server-2-tests.txt" {
		t.Errorf("logs: %v, %v", logs, err)
	}
}

// What the tests started goes with them, even when the binary cannot end by
// itself any more.
func TestUpstreamRunnerKillsTheGroup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no process groups")
	}
	r := playRunner(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	start := time.Now()
	b, err := r.run(ctx, patched, "server", []string{"TestPlayDeaf"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	var pid int
	out := b.running["TestPlayDeaf"].output
	if _, err := fmt.Sscanf(out[strings.Index(out, "child "):], "child %d", &pid); err != nil {
		t.Fatalf("no child in %q: %v", out, err)
	}
	for range 100 {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func TestUpstreamCopyTree(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "new")
	if err := os.Mkdir(filepath.Join(from, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(from, "dir", "run.sh")
	if err := os.WriteFile(file, []byte("text"), 0o555); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(to, from); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(to, "dir", "run.sh"))
	info, _ := os.Stat(filepath.Join(to, "dir", "run.sh"))
	if err != nil || !bytes.Equal(text, []byte("text")) || info.Mode().Perm() != 0o755 {
		t.Errorf("copied %q, %v, %v", text, info, err)
	}
}
