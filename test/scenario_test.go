package test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each scenario of conf/ is run as a person would run it.
func TestEdgeScenarios(t *testing.T) {
	need(t, "haproxy")
	scripts, err := filepath.Glob("../conf/*/verify")
	require_NoError(t, err)
	if len(scripts) < 4 {
		t.Fatalf("%d scenarios, want one for each pattern and one for all three: %v", len(scripts), scripts)
	}
	for _, script := range scripts {
		name := filepath.Base(filepath.Dir(script))
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(script)
			cmd.Env = append(os.Environ(), "NATS_SERVER="+binary(t, "patched"))
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("ok "+name)) {
				t.Fatalf("%s: %v\n%s", script, err, out)
			}
		})
	}
}

// `make run`: what it prints works when it is pasted, and Ctrl-C ends it and all
// that it started; with HAProxy, and without it.
func TestEdgeMakeRun(t *testing.T) {
	for _, haproxy := range []string{need(t, "haproxy"), "/no/haproxy/here"} {
		ports := map[string]int{"NATS_PORT": freePort(t), "TRUSTED_PORT": freePort(t), "MONITOR_PORT": freePort(t), "EDGE_PORT": freePort(t)}
		t.Setenv("HAPROXY", haproxy)
		for k, v := range ports {
			t.Setenv(k, fmt.Sprint(v))
		}
		p := startProcess(t, "../scripts/run")
		// It builds first, from nothing if need be.
		checkWithin(t, 10*time.Minute, func() error {
			select {
			case <-p.done:
				t.Fatalf("make run ended:\n%s", p.output())
			default:
			}
			if !strings.Contains(p.output(), "Ctrl-C ends all") {
				return fmt.Errorf("not started:\n%s", p.output())
			}
			return nil
		})
		if want := map[bool]string{true: "development only", false: "the edge is HAProxy"}[haproxy == "/no/haproxy/here"]; !strings.Contains(p.output(), want) {
			t.Fatalf("does not say %q:\n%s", want, p.output())
		}
		var lines []string
		for _, l := range strings.Split(p.output(), "\n") {
			if strings.HasPrefix(l, "build/bin/") {
				lines = append(lines, l)
			}
		}
		require_Equal(t, len(lines), 3)
		paste := func(line string) *process {
			return startProcess(t, "bash", "-c", "cd .. && exec "+line)
		}
		inside, outside := paste(lines[0]), paste(lines[2])
		// A subscriber may come later than the message: it is sent until it is seen.
		checkFor(t, func() error {
			require_Equal(t, paste(lines[1]).wait(), 0)
			for _, sub := range []*process{inside, outside} {
				if !strings.Contains(sub.output(), "hello from outside") {
					return fmt.Errorf("not received: %s", sub.output())
				}
			}
			return nil
		})
		inside.stop()
		outside.stop()
		p.signal(syscall.SIGINT)
		require_Equal(t, p.wait(), 0)
		for k, port := range ports {
			if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				c.Close()
				t.Fatalf("%s is still open after Ctrl-C", k)
			}
		}
	}
}
