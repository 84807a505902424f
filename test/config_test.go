package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nats-trusted-proxy/scripts/devcert/certs"
)

// checkConfig runs nats-server -t with more flags and returns what it prints.
func checkConfig(t testing.TB, conf string, flags ...string) (out string, ok bool) {
	t.Helper()
	b, err := exec.Command(binary(t, "patched"), append([]string{"-t", "-c", createConfFile(t, conf)}, flags...)...).CombinedOutput()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatal(err)
	}
	return string(b), err == nil
}

// All faults of a file are reported at once, each with its line and column.
func TestListenerConfigErrors(t *testing.T) {
	out, ok := checkConfig(t, `listen: 127.0.0.1:4222
listeners {
  a {
    listen: "127.0.0.1:1001"
    proxy_protocol { trusted: ["10.42.1.0/16", "192.0.2.1"] }
  }
  b {
    listen: "127.0.0.1:1002"
    proxy_protocol { header_timeout: "1s" }
  }
  c {
    listen: "127.0.0.1:1003"
    tls { cert_file: "no-such-file", key_file: "no-such-file" }
    advertise_tls: auto
  }
  d {
    listen: "127.0.0.1:4222"
    nonsense: true
  }
}
`)
	require_Equal(t, ok, false)
	for _, want := range []string{
		`:5:33: listener "a": trusted: network "10.42.1.0/16" has host bits set, did you mean "10.42.0.0/16" or the address "10.42.1.0"`,
		`:9:5: listener "b": proxy_protocol requires trusted`,
		`:9:22: listener "b": header_timeout must be between`,
		`:14:5: listener "c": advertise_tls is for TLS that is not done here and cannot be used together with tls`,
		`:13:`, // of the certificate
		`:18:5: listener "d": unknown field "nonsense"`,
		`:17:5: listener "d": address 127.0.0.1:4222 is also that of the main client port`,
	} {
		require_Contains(t, out, want)
	}
}

func TestListenerConfigConflicts(t *testing.T) {
	for name, c := range map[string]struct{ conf, want string }{
		"the same address twice": {`listeners { a { listen: "127.0.0.1:1001" }, b { listen: "127.0.0.1:1001" } }`,
			`listener "b": address 127.0.0.1:1001 is also that of listener "a"`},
		"a wildcard": {`listeners { a { listen: "0.0.0.0:1001" }, b { listen: "127.0.0.1:1001" } }`,
			`listener "b": address 127.0.0.1:1001 is also that of listener "a"`},
		"the main port": {"listeners { a { listen: \"127.0.0.1:5222\" } }\nlisten: 127.0.0.1:5222",
			`:1:16: listener "a": address 127.0.0.1:5222 is also that of the main client port`},
		"the default main port": {`listeners { a { listen: "0.0.0.0:4222" } }`,
			`is also that of the main client port`},
		"the monitoring port": {"http: 127.0.0.1:8222\nlisteners { a { listen: 127.0.0.1:8222 } }",
			`:2:17: listener "a": address 127.0.0.1:8222 is also that of http`},
		"the cluster port": {"cluster { name: c, listen: 127.0.0.1:6222 }\nlisteners { a { listen: 127.0.0.1:6222 } }",
			`is also that of cluster`},
		"advertise_tls with tls": {`listeners { a { listen: "127.0.0.1:1001", tls {}, advertise_tls: never } }`,
			`advertise_tls is for TLS that is not done here`},
	} {
		t.Run(name, func(t *testing.T) {
			out, ok := checkConfig(t, c.conf)
			require_Equal(t, ok, false)
			require_Contains(t, out, c.want)
		})
	}
}

// A port of the command line is not in the file; starting finds it.
func TestListenerConfigConflictsWithFlag(t *testing.T) {
	conf := createConfFile(t, `listeners { a { listen: "127.0.0.1:5222" } }`)
	out, err := exec.Command(binary(t, "patched"), "-c", conf, "-a", "127.0.0.1", "-p", "5222").CombinedOutput()
	if err == nil {
		t.Fatal("started")
	}
	require_Contains(t, string(out), `listener "a": address 127.0.0.1:5222 is also that of the main client port`)
}

func TestListenerConfigGood(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	out, ok := checkConfig(t, fmt.Sprintf(`
		EDGE = "10.42.0.0/16"
		listeners {
			edge { listen: "0.0.0.0:4221", max_handshakes: 10, advertise: ["nats.example.com:4221"], advertise_tls: required
				proxy_protocol { trusted: [$EDGE, "2001:db8::/32", "192.0.2.7"], header: first, header_timeout: "10s", max_header: 1024, crc32c: require } }
			local { listen: "unix:%s", socket_mode: "0600", proxy_protocol {} }
			partners { host: "127.0.0.1", port: 4443, allow_non_tls: true, no_advertise: true, %s }
			plain { listen: 4999 }
		}`, filepath.Join(t.TempDir(), "s"), tlsBlock(dir, "verify: true")))
	if !ok {
		t.Fatal(out)
	}
}

// A listener that cannot be opened ends the server, with the reason and an exit
// code that says so.
func TestListenerCannotBindIsFatal(t *testing.T) {
	other := startProcess(t, binary(t, "patched"), "-a", "127.0.0.1", "-p", fmt.Sprint(freePort(t)))
	waitForPort(t, "127.0.0.1:"+other.cmd.Args[4])
	conf := createConfFile(t, fmt.Sprintf("listen: 127.0.0.1:-1\nlisteners { a { listen: \"127.0.0.1:%s\" } }", other.cmd.Args[4]))
	p := startProcess(t, binary(t, "patched"), "-c", conf)
	require_Equal(t, p.wait(), 1)
	require_Contains(t, p.output(), "[FTL]", `for listener "a"`, "address already in use")
	if strings.Contains(p.output(), "Server is ready") {
		t.Fatal("it was ready all the same")
	}
}
