package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The areas must hold each test of the module once, and none may be empty: an
// upstream that moved its tests must not leave an area that proves nothing.
func TestUpstreamAreasPartition(t *testing.T) {
	ws, err := openWorkspace(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := ws.moduleDir(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tests, err := scanTests(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(tests) < 4000 {
		t.Errorf("only %d tests found in %s", len(tests), dir)
	}
	byArea := assign(upstreamAreas, tests)
	seen := map[testID]string{}
	for _, a := range upstreamAreas {
		if len(byArea[a.name]) == 0 {
			t.Errorf("area %s has no test", a.name)
		}
		for _, id := range byArea[a.name] {
			if other := seen[id]; other != "" {
				t.Errorf("%s is in %s and in %s", id, other, a.name)
			}
			seen[id] = a.name
		}
	}
	for _, id := range tests {
		if seen[id] == "" {
			t.Errorf("%s is in no area", id)
		}
	}

	// A few that the hooks must answer for, wherever upstream keeps them.
	for test, want := range map[string]string{
		"server:TestLameDuckMode":               "lameduck",
		"server:TestClientProxyProtoV2EndToEnd": "proxy",
		"server:TestAuthProxyRequired":          "proxy",
		"server:TestConfigReloadRotateTLS":      "reload",
		"server:TestClientAdvertiseConnectURL":  "info",
		"server:TestMonitorConnz":               "monitor",
		"server:TestTLSClientHandshakeFirst":    "tls",
		"test:TestTLSPinnedCertsClient":         "tls",
		"test:TestPortsFile":                    "start",
	} {
		var got string
		for id, area := range seen {
			if id.pkg+":"+id.name == test {
				got = area
			}
		}
		if got != want {
			t.Errorf("%s is in area %q, want %q", test, got, want)
		}
	}
}

func TestUpstreamScan(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"func TestA(t *testing.T) {", "TestA"},
		{"func Test(t *testing.T) {", "Test"},
		{"func Test_a(t *testing.T) {", "Test_a"},
		{"func FuzzA(f *testing.F) {", "FuzzA"},
		{"func ExampleA() {", "ExampleA"},
		{"func Testing(t *testing.T) {", ""},
		{"func TestMain(m *testing.M) {", ""},
		{"func BenchmarkA(b *testing.B) {", ""},
		{"func TestHelper(t *testing.T, n int) {", ""},
		{"// func TestA(t *testing.T) {", ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a_test.go"), []byte("package a\n\n"+c.file+"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		tests, err := scanTests(dir)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, id := range tests {
			got = append(got, id.name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: found %q, want %q", c.file, got, c.want)
		}
	}
}

func TestUpstreamChooseAreas(t *testing.T) {
	table := []area{{name: "a", hooks: true}, {name: "b"}, {name: "c", hooks: true}}
	for _, c := range []struct {
		names string
		all   bool
		want  string
	}{
		{"", false, "a c"},
		{"", true, "a b c"},
		{"c,b", false, "b c"},
	} {
		got, err := chooseAreas(table, c.names, c.all)
		var names []string
		for _, a := range got {
			names = append(names, a.name)
		}
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%q, %v: %q, %v; want %q", c.names, c.all, names, err, c.want)
		}
	}
	if _, err := chooseAreas(table, "a,x", false); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("an unknown area: %v", err)
	}
}

func TestUpstreamAreaNames(t *testing.T) {
	var names []string
	for _, a := range upstreamAreas {
		if a.about == "" || a.timeout == 0 {
			t.Errorf("area %s says too little", a.name)
		}
		names = append(names, a.name)
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(upstreamAreas) {
		t.Errorf("two areas with one name: %v", names)
	}
}
