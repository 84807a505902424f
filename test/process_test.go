package test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test started. It is stopped, by PID, when the
// test ends.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; set when done is closed

	mu  sync.Mutex
	out bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func startProcess(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	require_NoError(t, p.cmd.Start())
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("output of %s %s:\n%s", name, strings.Join(args, " "), p.output())
		}
	})
	return p
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// wait returns the exit code.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(deadline):
		p.t.Fatalf("process does not end, its output:\n%s", p.output())
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the process as an operator would, and by force if it does not.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(deadline):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func waitForPort(t testing.TB, addr string) {
	t.Helper()
	checkFor(t, func() error {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

func waitForHealth(t testing.TB, p *process, monitorPort int) {
	t.Helper()
	checkFor(t, func() error {
		select {
		case <-p.done:
			t.Fatalf("the server ended, its output:\n%s", p.output())
		default:
		}
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", monitorPort))
		if err != nil {
			return err
		}
		r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("healthz says %s", r.Status)
		}
		return nil
	})
}

// built are the binaries that were built in this run, by name.
var built struct {
	sync.Mutex
	dir   string
	names map[string]error
}

// binary builds a command and returns its path: "patched" is main.go,
// "pristine" upstream's own of the same version.
func binary(t testing.TB, name string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.names == nil {
		dir, err := filepath.Abs("../build/test-bin")
		require_NoError(t, err)
		require_NoError(t, os.MkdirAll(dir, 0o755))
		built.dir, built.names = dir, map[string]error{}
	}
	if err, ok := built.names[name]; ok {
		require_NoError(t, err)
		return filepath.Join(built.dir, name)
	}
	path := filepath.Join(built.dir, name)
	var cmd *exec.Cmd
	switch name {
	case "patched":
		cmd = exec.Command("go", "build", "-trimpath", "-o", path, "nats-trusted-proxy")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	case "pristine":
		cmd = exec.Command("bash", "-c", `cp "$(../scripts/pristine)" "$0"`, path)
	default:
		t.Fatalf("no binary %q", name)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building %s: %w\n%s", name, err, out)
	}
	built.names[name] = err
	require_NoError(t, err)
	return path
}

// need fails when a program is not there: the test command installs it.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is not installed: run `make test`, which installs what the tests need, or install it yourself", name)
	}
	return path
}
