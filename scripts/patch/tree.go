package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"nats-trusted-proxy/scripts/patch/hooks"
)

const (
	// stampFile, in the root of a written tree, tells whether it is whole and
	// up to date.
	stampFile = ".patched"
	// defaultTree is where the tree of the required version goes.
	defaultTree = "build/nats-server"
)

// workHeader begins each go.work that the tool writes, and so tells it from one
// that a person wrote.
const workHeader = "// Written by scripts/patch. Do not edit: apply writes it again.\n"

// apply writes the tree and its go.work, or finds that nothing is to do.
func (t *tool) apply(required requirement, version, out string) error {
	tree := cmp.Or(out, filepath.Join(t.root, filepath.FromSlash(defaultTree)))
	if out == "" && version != required.Upstream {
		tree = filepath.Join(t.root, "build", version, "nats-server")
	}
	tree, err := filepath.Abs(tree)
	if err != nil {
		return err
	}
	build := filepath.Join(t.root, "build")
	if err := os.MkdirAll(build, 0o755); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(build, ".patch.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if err := t.mayReplace(tree); err != nil {
		return err
	}
	if err := removeLeftovers(tree); err != nil {
		return err
	}
	inputs, err := t.inputs()
	if err != nil {
		return err
	}
	shown := tree
	if rel, err := filepath.Rel(t.root, tree); err == nil && filepath.IsLocal(rel) {
		shown = filepath.ToSlash(rel)
	}
	if upToDate(tree, version, inputs) {
		fmt.Fprintf(t.out, "%s: upstream %s, up to date\n", shown, version)
		return t.writeWork(required, tree)
	}
	p, upstream, err := t.patch(version)
	if err != nil {
		return err
	}
	if err := writeTree(tree, upstream, p, inputs); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "%s: upstream %s, %d hooks, %d glue files\n", shown, version, p.Hooks, len(p.Glue))
	return t.writeWork(required, tree)
}

// mayReplace refuses to replace a directory that is not a tree of ours. Under
// build/ everything is.
func (t *tool) mayReplace(tree string) error {
	if rel, err := filepath.Rel(filepath.Join(t.root, "build"), tree); err == nil && rel != "." && filepath.IsLocal(rel) {
		return nil
	}
	entries, err := os.ReadDir(tree)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(tree, stampFile)); err != nil {
		return fmt.Errorf("%s holds something else: name a new directory, or remove it yourself", tree)
	}
	return nil
}

// Names of the directories that exist only while a run goes on, beside the tree.
// The go command skips names that start with a dot.
func newPrefix(tree string) string { return "." + filepath.Base(tree) + ".new-" }
func oldPrefix(tree string) string { return "." + filepath.Base(tree) + ".old-" }

// removeLeftovers removes what runs that were killed left beside the tree. The
// lock is held: no other run is at work.
func removeLeftovers(tree string) error {
	entries, err := os.ReadDir(filepath.Dir(tree))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), newPrefix(tree)) || strings.HasPrefix(e.Name(), oldPrefix(tree)) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(tree), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// inputs hashes what the tree is made from, apart from upstream: the hooks, the
// glue and this tool. A tree of an older tool is written again.
func (t *tool) inputs() (string, error) {
	sum := sha256.New()
	for _, pattern := range []string{
		patchDir + "/hooks/*.hooks", patchDir + "/glue/*.go",
		"scripts/patch/*.go", "scripts/patch/hooks/*.go",
	} {
		names, err := fs.Glob(os.DirFS(t.root), pattern)
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if strings.HasPrefix(name, "scripts/") && strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(filepath.Join(t.root, filepath.FromSlash(name)))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// stamp is the content of the stamp file of a tree as it is now. Sizes and
// times stand for the content: reading it all would be slow, and a hand edit
// shows in them.
func stamp(tree, version, inputs string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(tree, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(tree, name)
		if err != nil || rel == stampFile {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %d %d\n", filepath.ToSlash(rel), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return fmt.Sprintf("upstream %s\ninputs %s\ntree %x\n", version, inputs, sum.Sum(nil)), err
}

func upToDate(tree, version, inputs string) bool {
	have, err := os.ReadFile(filepath.Join(tree, stampFile))
	if err != nil {
		return false
	}
	want, err := stamp(tree, version, inputs)
	return err == nil && string(have) == want
}

// writeTree builds the tree beside its place and then moves it there: a build
// that runs meanwhile sees the old tree or the new one, and a killed run leaves
// no half of either.
func writeTree(tree string, upstream fs.FS, p *hooks.Patch, inputs string) error {
	parent := filepath.Dir(tree)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(parent, newPrefix(tree))
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := fill(fresh, upstream, p); err != nil {
		return err
	}
	text, err := stamp(fresh, p.Version, inputs)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(fresh, stampFile), []byte(text), 0o644); err != nil {
		return err
	}
	// MkdirTemp keeps others out; the tree is no secret.
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	old := filepath.Join(parent, oldPrefix(tree)+fmt.Sprint(os.Getpid()))
	if err := os.Rename(tree, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, tree); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// fill copies upstream with the patched files in place of their originals, and
// the glue.
func fill(dir string, upstream fs.FS, p *hooks.Patch) error {
	patched := map[string]string{}
	for i := range p.Files {
		patched[p.Files[i].Path] = p.Files[i].Text()
	}
	err := fs.WalkDir(upstream, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		if text, ok := patched[name]; ok {
			return os.WriteFile(to, []byte(text), 0o644)
		}
		return copyFile(to, upstream, name)
	})
	if err != nil {
		return err
	}
	for name, text := range p.Glue {
		to := filepath.Join(dir, filepath.FromSlash(path.Dir(name)))
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, path.Base(name)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies without the module cache's write protection.
func copyFile(to string, from fs.FS, name string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// writeWork writes the go.work that puts the tree in upstream's place: at the
// root for the required version, else beside the tree.
func (t *tool) writeWork(required requirement, tree string) error {
	dir := filepath.Dir(tree)
	if tree == filepath.Join(t.root, filepath.FromSlash(defaultTree)) {
		dir = t.root
	}
	use, err := relative(dir, t.root)
	if err != nil {
		return err
	}
	replace, err := relative(dir, tree)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s\ngo %s\n\nuse %s\n\nreplace %s => %s\n", workHeader, required.Go, use, upstreamPath, replace)
	name := filepath.Join(dir, "go.work")
	have, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(have) == text {
		return nil
	}
	if dir != t.root && len(have) > 0 && !strings.HasPrefix(string(have), workHeader) {
		return fmt.Errorf("%s is not of this tool: choose another -out, or remove it yourself", name)
	}
	return replaceFile(name, text)
}

// relative spells a path as go.work wants it: with a dot in front.
func relative(from, to string) (string, error) {
	rel, err := filepath.Rel(from, to)
	if err != nil {
		return "", err
	}
	if rel = filepath.ToSlash(rel); rel == "." || strings.HasPrefix(rel, "../") || rel == ".." {
		return rel, nil
	}
	return "./" + rel, nil
}

// replaceFile writes a file so that readers see the old text or the new.
func replaceFile(name, text string) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".go.work.new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
