package main

import (
	"bytes"
	"context"
	"flag"
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

// play makes this test binary the one that goRunner runs: see TestPlay.
var play = flag.Bool("upstream-play", false, "for the runner's test only")

// TestPlay… are run by TestUpstreamRunner, in a process of their own.
func TestPlayPass(t *testing.T) { playing(t) }
func TestPlayFail(t *testing.T) { playing(t); t.Error("as it should") }
func TestPlaySkip(t *testing.T) { playing(t); t.Skip() }
func TestPlayDir(t *testing.T) {
	playing(t)
	wd, _ := os.Getwd()
	fmt.Println("in", filepath.Base(wd), "TMPDIR", os.Getenv("TMPDIR"))
	t.Fail()
}

func TestPlayDie(t *testing.T) {
	playing(t)
	go panic("away")
	select {}
}

func TestPlayHang(t *testing.T) { playing(t); select {} }

func TestPlayChild(t *testing.T) {
	playing(t)
	// Holds our output open after we are gone.
	if err := startSleep(); err != nil {
		t.Fatal(err)
	}
}

func playing(t *testing.T) {
	if os.Getenv("UPSTREAM_PLAY") == "" {
		t.SkipNow()
	}
}
