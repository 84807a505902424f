package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// upstreamPath is the module that the patch is for.
const upstreamPath = "github.com/nats-io/nats-server/v2"

// patchDir holds hooks and glue, under the root of the repository.
const patchDir = "server/_upstream"

// module is a downloaded upstream version.
type module struct {
	Version string
	Dir     string
	Error   string
}

// findRoot returns the repository that dir is in.
func findRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(patchDir))); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no %s here or above: run the command inside the repository", patchDir)
		}
		dir = parent
	}
}

// goCommand runs go outside any workspace: the one that this tool writes may
// point at a tree that is not there yet.
func goCommand(dir string, args ...string) ([]byte, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && stderr.Len() > 0 {
		err = errors.New(strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// requirement is what the patch needs of the repository's go.mod.
type requirement struct {
	// Go is the language version, which go.work repeats.
	Go string
	// Upstream is the required upstream version.
	Upstream string
}

func readGoMod(root string) (requirement, error) {
	out, err := goCommand(root, "mod", "edit", "-json")
	if err != nil {
		return requirement{}, fmt.Errorf("go.mod: %w", err)
	}
	var mod struct {
		Go      string
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		return requirement{}, fmt.Errorf("go.mod: %w", err)
	}
	for _, r := range mod.Require {
		if r.Path == upstreamPath {
			return requirement{mod.Go, r.Version}, nil
		}
	}
	return requirement{}, fmt.Errorf("go.mod requires no %s: run `go get %s@VERSION`", upstreamPath, upstreamPath)
}

// fetcher returns the fetch that asks the go command, which downloads what is
// missing and compares it with go.sum or the checksum database.
func fetcher(root string) func(string) (module, error) {
	return func(version string) (module, error) {
		var m module
		out, err := goCommand(root, "mod", "download", "-json", upstreamPath+"@"+version)
		if jsonErr := json.Unmarshal(out, &m); err == nil {
			err = jsonErr
		}
		if m.Error != "" {
			err = errors.New(m.Error)
		}
		if err != nil {
			return m, fmt.Errorf("upstream %s: %w", version, err)
		}
		return m, nil
	}
}

// upstream returns the source of exactly this upstream version.
func (t *tool) upstream(version string) (fs.FS, error) {
	m, err := t.fetch(version)
	if err != nil {
		return nil, err
	}
	if m.Version != version {
		return nil, fmt.Errorf("wrong upstream version: asked for %s, found %s: name the exact version", version, m.Version)
	}
	return os.DirFS(m.Dir), nil
}
