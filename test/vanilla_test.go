package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"nats-trusted-proxy/scripts/devcert/certs"
	"nats-trusted-proxy/server/revision"
)

// What differs between two runs of one binary, and has to be the same text
// before they can be compared.
var volatile = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\[\d+\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d+`), "[PID] TIME"},
	{regexp.MustCompile(`\b[NXU][A-Z2-7]{55}\b`), "KEY"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`"(server_id|nonce|xkey|server_name|go|client_id|port|start|now|uptime|config_load_time|config_digest|rtt|last_activity|idle|name|id)":"?[^",}]*"?`), `"$1":X`},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "DIGEST"},
	{regexp.MustCompile(`\bcid:\d+`), "cid:N"},
	{regexp.MustCompile(`"cid":\d+`), `"cid":N`},
	{regexp.MustCompile(`Node: +\S+`), "Node: X"},
	{regexp.MustCompile(`in (\d+[.\d]*[µnm]?s)`), "in DURATION"},
	{regexp.MustCompile(`\d+[.\d]*(µs|ms)\b`), "DURATION"},
	{regexp.MustCompile(`/[^\s"']*/(patched|pristine)\b`), "nats-server"},
	{regexp.MustCompile(`/tmp/[^\s"'):]*`), "/TMP"},
	{regexp.MustCompile(`\d+(\.\d+)? [KMGT]B\b`), "SIZE"},
	{regexp.MustCompile(`Git: +\[[^]]*\]`), "Git: [X]"},
	{regexp.MustCompile(`"git_commit":"[^"]*",?`), ""},
}

func stable(s string) string {
	for _, v := range volatile {
		s = v.re.ReplaceAllString(s, v.with)
	}
	return s
}

// shape is what a monitoring page is made of: each path of keys and its type.
func shape(prefix string, v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			shape(prefix+"."+k, e, into)
		}
	case []any:
		for _, e := range v {
			shape(prefix+"[]", e, into)
		}
	default:
		into[fmt.Sprintf("%s %T", prefix, v)] = true
	}
}

// vanillaRun does everything to one server and returns what it showed.
func vanillaRun(t *testing.T, bin, conf string, script []string) map[string]string {
	t.Helper()
	shown := map[string]string{}
	monitorPort, port := freePort(t), freePort(t)
	conf = strings.NewReplacer("PORT", fmt.Sprint(port), "STORE", t.TempDir()).Replace(conf)
	path := createConfFile(t, conf)
	p := startProcess(t, bin, "-c", path, "-m", fmt.Sprint(monitorPort), "-D")
	waitForHealth(t, p, monitorPort)

	c := dialRaw(t, fmt.Sprintf("127.0.0.1:%d", port))
	for n, line := range script {
		if line == "" {
			// Another connection: the one before ended.
			c.Close()
			c = dialRaw(t, fmt.Sprintf("127.0.0.1:%d", port))
			continue
		}
		if line != "-" {
			// The server may have closed already; then the reading shows it.
			_, _ = c.Write([]byte(line + "\r\n"))
		}
		// All there is to read, up to a pause or the end.
		var got strings.Builder
		for {
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			b := make([]byte, 4096)
			k, err := c.r.Read(b)
			got.Write(b[:k])
			if err != nil {
				if !os.IsTimeout(err) {
					got.WriteString("<closed>")
				}
				break
			}
		}
		// The server's own PING comes when its timer says so.
		shown[fmt.Sprintf("script %02d %s", n, line)] = stable(strings.ReplaceAll(got.String(), "PING\r\n", ""))
	}
	for _, page := range []string{"/varz", "/connz?subs=1&auth=1&state=all", "/routez", "/accountz", "/subsz", "/healthz", "/jsz"} {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", monitorPort, page))
		require_NoError(t, err)
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		require_NoError(t, err)
		var v any
		require_NoError(t, json.Unmarshal(body, &v))
		fields := map[string]bool{}
		shape("", v, fields)
		var keys []string
		for k := range fields {
			keys = append(keys, k)
		}
		sort.Strings(keys)
		shown[page] = strings.Join(keys, "\n")
	}
	c.Close()
	p.signal(syscall.SIGHUP)
	checkFor(t, func() error {
		if !strings.Contains(p.output(), "Reloaded server configuration") {
			return fmt.Errorf("not reloaded:\n%s", p.output())
		}
		return nil
	})
	p.signal(syscall.SIGUSR2) // lame duck
	shown["exit code"] = fmt.Sprint(p.wait())
	// Goroutines race to write some of the lines: the set is compared.
	lines := strings.Split(stable(p.output()), "\n")
	sort.Strings(lines)
	var unique []string
	for i, l := range lines {
		// How a closed connection is seen first is a race of upstream's own.
		if strings.Contains(l, "Client connection closed") || strings.Contains(l, "Ping Timer") || strings.Contains(l, "Delaying PING") ||
			// Our own polling, when it came early.
			strings.Contains(l, "Healthcheck failed") {
			continue
		}
		if i == 0 || l != lines[i-1] {
			unique = append(unique, l)
		}
	}
	shown["log"] = strings.Join(unique, "\n")
	return shown
}

func compareShown(t *testing.T, pristine, patched map[string]string) {
	t.Helper()
	if reflect.DeepEqual(pristine, patched) {
		return
	}
	for k, want := range pristine {
		if got := patched[k]; got != want {
			t.Errorf("%s differs\nupstream:\n%s\npatched:\n%s", k, want, got)
		}
	}
}

// A configuration that uses nothing of ours is upstream's server: the same
// bytes, fields, log lines and exit code.
func TestListenerVanillaIsUpstream(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	script := []string{
		"-", `CONNECT {"verbose":true,"protocol":1,"name":"x","headers":true}`, "PING", "SUB a 1", "PUB a 2\r\nhi",
		"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi", "SUB $SYS.> 2", "UNSUB 1", "PUB a.> 1\r\nx", "NONSENSE",
		"", "-", `CONNECT {"verbose":false,"user":"u","pass":"wrong"}`, "PING",
		"", "-", "PING",
		"", "-", `CONNECT {"no json`,
		"", "-", "PROXY TCP4 203.0.113.7 192.0.2.1 1 2", "PING",
		"", "-", "PUB " + strings.Repeat("a", 5000),
	}
	for name, conf := range map[string]string{
		"plain":     "listen: 127.0.0.1:PORT\n",
		"users":     "listen: 127.0.0.1:PORT\nauthorization { users: [ { user: u, password: p } ] }\n",
		"noauth":    "listen: 127.0.0.1:PORT\naccounts { A { users: [ { user: u, password: p } ] } }\nno_auth_user: u\n",
		"jetstream": "listen: 127.0.0.1:PORT\njetstream { store_dir: \"STORE\" }\n",
		"proxy":     "listen: 127.0.0.1:PORT\nproxy_protocol: true\n",
		"tls": "listen: 127.0.0.1:PORT\nallow_non_tls: true\n" +
			fmt.Sprintf("tls { cert_file: %q, key_file: %q }\n", filepath.Join(dir, certs.Server), filepath.Join(dir, certs.ServerKey)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // mostly waits
			compareShown(t, vanillaRun(t, binary(t, "pristine"), conf, script), vanillaRun(t, binary(t, "patched"), conf, script))
		})
	}
}

// The command line: the same exit codes and words for what both know.
func TestListenerVanillaCommandLine(t *testing.T) {
	taken := startProcess(t, binary(t, "pristine"), "-a", "127.0.0.1", "-p", fmt.Sprint(freePort(t)), "-P", filepath.Join(t.TempDir(), "pid"))
	takenPort := taken.cmd.Args[4]
	waitForPort(t, "127.0.0.1:"+takenPort)
	good := createConfFile(t, "listen: 127.0.0.1:-1\n")
	bad := createConfFile(t, "listen: 127.0.0.1:-1\nnonsense: 1\nmax_payload: \"x\"\ntls { nothing: 1 }\n")
	run := func(bin string, args ...string) string {
		cmd := exec.Command(binary(t, bin), args...)
		out, err := cmd.CombinedOutput()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			t.Fatal(err)
		}
		// Errors of one file come in any order.
		lines := strings.Split(strings.TrimPrefix(stable(string(out)), "nats-server: "), "\n")
		sort.Strings(lines)
		return fmt.Sprintf("%s\nexit %d", strings.Join(lines, "\n"), cmd.ProcessState.ExitCode())
	}
	for _, args := range [][]string{
		{"-t", "-c", good},
		{"-t", "-c", bad},
		{"-c", bad},
		{"-c", "no-such-file.conf"},
		{"-p", "notanumber"},
		{"-a", "127.0.0.1", "-p", takenPort},
		{"--signal", "nonsense"},
		{"--signal", "reload=999999"},
		{"-js", "-sd", "/proc/none", "-a", "127.0.0.1", "-p", "-1"},
		{"argument"},
	} {
		if want, got := run("pristine", args...), run("patched", args...); !sameButUsage(want, got) {
			t.Errorf("%q differs\nupstream:\n%s\npatched:\n%s", args, want, got)
		}
	}

	v := run("patched", "-v")
	require_Contains(t, v, revision.Upstream, revision.Release, "exit 0")
	require_Contains(t, run("pristine", "-v"), revision.Upstream, "exit 0")
	out, err := exec.Command(binary(t, "patched"), "-v").Output()
	require_NoError(t, err)
	require_Equal(t, strings.HasPrefix(string(out), "nats-server: "+revision.Upstream+" "), true)
	// Every flag that upstream declares is taken.
	help := run("patched", "-h")
	require_Contains(t, help, "exit 0")
	for _, flag := range regexp.MustCompile(`--[a-z_]+`).FindAllString(run("pristine", "-h"), -1) {
		require_Contains(t, help, flag)
	}
}

// sameButUsage leaves out the list of flags, which is in our own words.
func sameButUsage(a, b string) bool {
	keep := func(s string) string {
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if !strings.HasPrefix(l, "    ") && !strings.HasSuffix(l, ":") && strings.TrimSpace(l) != "" && !strings.HasPrefix(l, "Usage") &&
				!strings.HasPrefix(l, "The listeners block") {
				out = append(out, l)
			}
		}
		return strings.Join(out, "\n")
	}
	return keep(a) == keep(b)
}
