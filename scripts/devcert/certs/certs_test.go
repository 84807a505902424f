package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func write(t *testing.T, dir string, o Opts) bool {
	t.Helper()
	made, err := Write(dir, o)
	if err != nil {
		t.Fatalf("Write: %v", err)
	}
	return made
}

func verify(t *testing.T, dir, leaf string, host string, usage x509.ExtKeyUsage) error {
	t.Helper()
	ca, err := readCertificate(filepath.Join(dir, CA))
	if err != nil {
		t.Fatal(err)
	}
	c, err := readCertificate(filepath.Join(dir, leaf))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err = c.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestDevCertMakesAWorkingSet(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	if !write(t, dir, Opts{}) {
		t.Fatal("nothing was made")
	}
	for _, host := range DefaultHosts {
		if err := verify(t, dir, Server, host, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("server certificate for %s: %v", host, err)
		}
	}
	if err := verify(t, dir, Client, "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("client certificate: %v", err)
	}
	if err := verify(t, dir, Client, "", x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("the client certificate passes for a server's")
	}
	for _, pair := range [][2]string{{Server, ServerKey}, {Client, ClientKey}, {ServerCombined, ServerCombined}} {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, pair[0]), filepath.Join(dir, pair[1]))
		if err != nil {
			t.Errorf("%v: %v", pair, err)
			continue
		}
		key, ok := c.PrivateKey.(*ecdsa.PrivateKey)
		if !ok || key.Curve != elliptic.P256() {
			t.Errorf("%v: not ECDSA P-256", pair)
		}
	}
	for _, name := range files {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		want := os.FileMode(0o644)
		if name == ServerKey || name == ClientKey || name == ServerCombined {
			want = 0o600
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDevCertTakesHostsAndClientName(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, Opts{Hosts: []string{"nats.internal.test", "192.0.2.7"}, ClientCN: "sensor-1"})
	for host, ok := range map[string]bool{"nats.internal.test": true, "192.0.2.7": true, "localhost": false} {
		if err := verify(t, dir, Server, host, x509.ExtKeyUsageServerAuth); (err == nil) != ok {
			t.Errorf("%s: %v", host, err)
		}
	}
	c, err := readCertificate(filepath.Join(dir, Client))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Subject.String(); got != "CN=sensor-1" {
		t.Errorf("subject %q", got)
	}
}

func TestDevCertNegativeDaysIsExpiredAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, Opts{Days: -2})
	for leaf, usage := range map[string]x509.ExtKeyUsage{Server: x509.ExtKeyUsageServerAuth, Client: x509.ExtKeyUsageClientAuth} {
		err := verify(t, dir, leaf, "", usage)
		var invalid x509.CertificateInvalidError
		if !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
			t.Errorf("%s: %v, want expired", leaf, err)
		}
		c, err := readCertificate(filepath.Join(dir, leaf))
		if err != nil {
			t.Fatal(err)
		}
		if !c.NotBefore.Before(c.NotAfter) {
			t.Errorf("%s: starts after it ends", leaf)
		}
	}
	ca, err := readCertificate(filepath.Join(dir, CA))
	if err != nil {
		t.Fatal(err)
	}
	if now := time.Now(); now.After(ca.NotAfter) || now.Before(ca.NotBefore) {
		t.Error("the CA is not valid now")
	}
}

func TestDevCertIfMissing(t *testing.T) {
	dir := t.TempDir()
	o := Opts{IfMissing: true}
	if !write(t, dir, o) {
		t.Fatal("nothing made in an empty directory")
	}
	before, err := os.ReadFile(filepath.Join(dir, CA))
	if err != nil {
		t.Fatal(err)
	}
	if write(t, dir, o) {
		t.Fatal("made again")
	}
	after, err := os.ReadFile(filepath.Join(dir, CA))
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Fatal("said that it made nothing, and did")
	}

	for name, change := range map[string]func() Opts{
		"a file is gone":           func() Opts { os.Remove(filepath.Join(dir, ClientKey)); return o },
		"a file is no certificate": func() Opts { os.WriteFile(filepath.Join(dir, CA), []byte("?"), 0o644); return o },
		"another host":             func() Opts { return Opts{IfMissing: true, Hosts: []string{"other.test"}} },
		"another client":           func() Opts { return Opts{IfMissing: true, ClientCN: "other"} },
		"expired on purpose":       func() Opts { return Opts{IfMissing: true, Days: -1} },
		"files of two CAs": func() Opts {
			other := t.TempDir()
			write(t, other, Opts{})
			data, _ := os.ReadFile(filepath.Join(other, Server))
			os.WriteFile(filepath.Join(dir, Server), data, 0o644)
			return o
		},
	} {
		write(t, dir, o)
		opts := change()
		if !write(t, dir, opts) {
			t.Errorf("%s: nothing made", name)
		}
		if write(t, dir, opts) {
			t.Errorf("%s: made twice", name)
		}
	}

	// What was expired on purpose is not good enough for who wants it valid.
	write(t, dir, Opts{Days: -1})
	if !write(t, dir, o) {
		t.Error("expired certificates kept")
	}
}

func TestDevCertSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(file, Opts{}); err == nil {
		t.Error("a file taken for a directory")
	}
}
