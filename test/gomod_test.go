package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// goMod is a go.mod, as far as these tests look at it.
type goMod struct {
	Require []struct{ Path, Version string }
	Replace []any
}

func readGoMod(t testing.TB, path string) goMod {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json", path)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	require_NoError(t, err)
	var m goMod
	require_NoError(t, json.Unmarshal(out, &m))
	return m
}

// The committed go.mod replaces nothing and has what upstream is built with at
// the versions that upstream wants.
func TestListenerGoMod(t *testing.T) {
	ours := readGoMod(t, "../go.mod")
	require_Equal(t, len(ours.Replace), 0)
	have := map[string]string{}
	for _, r := range ours.Require {
		have[r.Path] = r.Version
	}
	// The patched tree's is upstream's own: hooks go into Go files only.
	for _, r := range readGoMod(t, "../build/nats-server/go.mod").Require {
		if have[r.Path] != r.Version {
			t.Errorf("%s is at %q, upstream wants %s", r.Path, have[r.Path], r.Version)
		}
	}
	// What git ignores is not here to be committed by mistake.
	out, err := exec.Command("git", "ls-files", "..").Output()
	require_NoError(t, err)
	for _, f := range strings.Fields(string(out)) {
		if f == "../go.work" || strings.HasPrefix(f, "../build/") {
			t.Errorf("%s is generated and committed", f)
		}
	}
}
