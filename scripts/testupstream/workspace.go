package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const upstream = "github.com/nats-io/nats-server/v2"

// workspace knows where the two trees are.
type workspace struct {
	// root is the repository.
	root string
	// version is that of upstream, by go.mod.
	version string
	// out is for what takes long.
	out io.Writer
}

func openWorkspace(ctx context.Context, out io.Writer) (*workspace, error) {
	gomod, err := goOutput(ctx, ".", offWorkspace, "env", "GOMOD")
	if err != nil {
		return nil, err
	}
	if gomod == "" || gomod == os.DevNull {
		return nil, errors.New("no go.mod here: run it inside the repository")
	}
	ws := &workspace{root: filepath.Dir(gomod), out: out}
	// The version is read from go.mod, which needs no module to be there.
	text, err := goOutput(ctx, ws.root, offWorkspace, "mod", "edit", "-json")
	if err != nil {
		return nil, err
	}
	var mod struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return nil, err
	}
	for _, r := range mod.Require {
		if r.Path == upstream {
			ws.version = r.Version
		}
	}
	if ws.version == "" {
		return nil, fmt.Errorf("%s does not require %s", gomod, upstream)
	}
	return ws, nil
}

func (ws *workspace) path(elem ...string) string {
	return filepath.Join(append([]string{ws.root, "build"}, elem...)...)
}

// patchedDir is the patched tree, if that is what go builds here.
func (ws *workspace) patchedDir(ctx context.Context) (string, error) {
	const fix = "run `go run ./scripts/patch apply`"
	want := ws.path("nats-server")
	if _, err := os.Stat(filepath.Join(want, "go.mod")); err != nil {
		return "", fmt.Errorf("no patched tree: %s", fix)
	}
	got, err := goOutput(ctx, ws.root, nil, "list", "-m", "-f", "{{.Dir}}", upstream)
	if err != nil {
		return "", err
	}
	if got != want {
		return "", fmt.Errorf("go builds upstream from %s and not from %s: unset GOWORK, then %s", got, want, fix)
	}
	return want, nil
}

// moduleDir is upstream in the module cache: verified, read-only.
func (ws *workspace) moduleDir(ctx context.Context) (string, error) {
	text, err := goOutput(ctx, ws.root, offWorkspace, "mod", "download", "-json", upstream+"@"+ws.version)
	if err != nil {
		return "", err
	}
	var mod struct{ Dir, Error string }
	if err := json.Unmarshal([]byte(text), &mod); err != nil {
		return "", err
	}
	if mod.Error != "" {
		return "", errors.New(mod.Error)
	}
	return mod.Dir, nil
}

// pristineDir is a writable copy of the module, made once for each version.
func (ws *workspace) pristineDir(ctx context.Context) (string, error) {
	dir := ws.path("pristine", ws.version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	from, err := ws.moduleDir(ctx)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// Renamed when it is whole, so that an interrupted copy is never taken.
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "incomplete-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	whole := filepath.Join(tmp, ws.version)
	if err := copyTree(whole, from); err != nil {
		return "", err
	}
	return dir, os.Rename(whole, dir)
}

// copyTree copies files and directories; the copies are writable.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dst, 0o755)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, text, info.Mode().Perm()|0o200)
	})
}

// offWorkspace is what a command needs to see modules as they are, unpatched.
var offWorkspace = []string{"GOWORK=off", "GOFLAGS=-mod=mod"}

// goOutput runs the go command and returns what it prints, trimmed.
func goOutput(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s%s", strings.Join(args, " "), err, errs.Bytes(), out.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}
