// Package certs makes throw-away certificates for development and tests: a CA
// whose key is forgotten at once, a server certificate and a client
// certificate, all ECDSA P-256, as PEM files in one directory.
//
// They prove nothing to anybody else. Do not install the CA anywhere.
package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The files that Write makes. Those that hold a private key have mode 0600.
const (
	CA             = "ca.pem"
	Server         = "server.pem"
	ServerKey      = "server-key.pem"
	ServerCombined = "server-combined.pem" // certificate and key in one file, as HAProxy wants it
	Client         = "client.pem"
	ClientKey      = "client-key.pem"
)

var files = []string{CA, Server, ServerKey, ServerCombined, Client, ClientKey}

// DefaultHosts are the names and addresses of the server certificate when Opts
// names none.
var DefaultHosts = []string{"localhost", "edge.example.test", "nats.example.test", "127.0.0.1", "::1"}

// Opts says what to make.
type Opts struct {
	// Hosts are the names and IP addresses in the server certificate;
	// empty means DefaultHosts.
	Hosts []string
	// Days is how long the server and client certificates live; 0 means 30.
	// A negative number makes them expired, that many days ago; the CA is
	// valid all the same, so that expiry is the only thing wrong.
	Days int
	// ClientCN is the common name of the client certificate; empty means
	// "demo-client".
	ClientCN string
	// IfMissing leaves a directory alone that already has what is asked for.
	IfMissing bool
}

func (o *Opts) setDefaults() {
	if len(o.Hosts) == 0 {
		o.Hosts = DefaultHosts
	}
	if o.Days == 0 {
		o.Days = 30
	}
	if o.ClientCN == "" {
		o.ClientCN = "demo-client"
	}
}

// Write makes the files in dir, which it creates when it must. It returns
// false when Opts.IfMissing is set and there was nothing to do.
func Write(dir string, o Opts) (bool, error) {
	o.setDefaults()
	if o.IfMissing && upToDate(dir, o) == nil {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}

	now := time.Now()
	notBefore, notAfter := now.Add(-time.Hour), now.AddDate(0, 0, o.Days)
	if o.Days < 0 {
		notBefore = notAfter.AddDate(0, 0, -1)
	}

	caKey, err := newKey()
	if err != nil {
		return false, err
	}
	caTemplate, err := template("nats-trusted-proxy throw-away CA", notBefore, now.AddDate(0, 0, max(o.Days, 1)))
	if err != nil {
		return false, err
	}
	caTemplate.IsCA = true
	caTemplate.BasicConstraintsValid = true
	caTemplate.MaxPathLenZero = true
	caTemplate.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, caKey.Public(), caKey)
	if err != nil {
		return false, err
	}
	// Parsed again for the key identifier that CreateCertificate chose.
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return false, err
	}

	leaf := func(cn string, hosts []string, usage ...x509.ExtKeyUsage) (certPEM, keyPEM []byte, err error) {
		key, err := newKey()
		if err != nil {
			return nil, nil, err
		}
		t, err := template(cn, notBefore, notAfter)
		if err != nil {
			return nil, nil, err
		}
		t.KeyUsage = x509.KeyUsageDigitalSignature
		t.ExtKeyUsage = usage
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else {
				t.DNSNames = append(t.DNSNames, h)
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
		if err != nil {
			return nil, nil, err
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, nil, err
		}
		return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER), nil
	}

	server, serverKey, err := leaf(o.Hosts[0], o.Hosts, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return false, err
	}
	client, clientKey, err := leaf(o.ClientCN, nil, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return false, err
	}
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{
		{CA, encode("CERTIFICATE", caDER), 0o644},
		{Server, server, 0o644},
		{ServerKey, serverKey, 0o600},
		{ServerCombined, append(append([]byte{}, server...), serverKey...), 0o600},
		{Client, client, 0o644},
		{ClientKey, clientKey, 0o600},
	} {
		if err := replaceFile(filepath.Join(dir, f.name), f.data, f.mode); err != nil {
			return false, err
		}
	}
	return true, nil
}

// upToDate says why the files in dir are not what o asks for, or nil.
func upToDate(dir string, o Opts) error {
	for _, name := range files {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	ca, err := readCertificate(filepath.Join(dir, CA))
	if err != nil {
		return err
	}
	server, err := readCertificate(filepath.Join(dir, Server))
	if err != nil {
		return err
	}
	client, err := readCertificate(filepath.Join(dir, Client))
	if err != nil {
		return err
	}
	for _, h := range o.Hosts {
		if err := server.VerifyHostname(h); err != nil {
			return err
		}
	}
	if client.Subject.CommonName != o.ClientCN {
		return fmt.Errorf("client certificate is for %q", client.Subject.CommonName)
	}
	// An interrupted run may have left files of two CAs side by side.
	for _, c := range []*x509.Certificate{server, client} {
		if err := c.CheckSignatureFrom(ca); err != nil {
			return err
		}
		if expired := time.Now().After(c.NotAfter); expired != (o.Days < 0) {
			return fmt.Errorf("expired: %v", expired)
		}
	}
	return nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New(path + ": no PEM block")
	}
	return x509.ParseCertificate(block.Bytes)
}

func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func template(cn string, notBefore, notAfter time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
	}, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// replaceFile never shows a half-written file, and never a key that others can
// read, not even for a moment.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
