package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"nats-trusted-proxy/scripts/patch/hooks"
)

// load reads the repository's hooks and glue.
func (t *tool) load() (*hooks.Set, error) {
	return hooks.Load(os.DirFS(filepath.Join(t.root, filepath.FromSlash(patchDir))))
}

// patch applies the hooks to one version, in memory.
func (t *tool) patch(version string) (*hooks.Patch, fs.FS, error) {
	set, loadErr := t.load()
	if set == nil {
		return nil, nil, loadErr
	}
	upstream, err := t.upstream(version)
	if err != nil {
		return nil, nil, errors.Join(loadErr, err)
	}
	p, err := set.Apply(upstream, version)
	return p, upstream, errors.Join(loadErr, err)
}

// check reports every error of every version before it fails.
func (t *tool) check(upstream []string) error {
	var errs []error
	for _, version := range upstream {
		p, _, err := t.patch(version)
		if err != nil {
			fmt.Fprintf(t.out, "%s: the patch does not apply\n", version)
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(t.out, "%s: %d hooks apply: %d lines into %d files, %d glue files\n",
			version, p.Hooks, p.Inserted(), len(p.Files), len(p.Glue))
	}
	errs = append(errs, t.checkTests())
	return unique(errors.Join(errs...))
}

// unique drops the lines of an error that come again: what is wrong with a hook
// is wrong for every version.
func unique(err error) error {
	if err == nil {
		return nil
	}
	seen := map[string]bool{}
	var lines []string
	for _, line := range strings.Split(err.Error(), "\n") {
		if !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	return errors.New(strings.Join(lines, "\n"))
}

var testFunc = regexp.MustCompile(`(?m)^func (\w+)\(`)

// checkTests looks for the test that each hook names.
func (t *tool) checkTests() error {
	set, err := t.load()
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, dir := range []string{"server", "test"} {
		err := filepath.WalkDir(filepath.Join(t.root, dir), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range testFunc.FindAllSubmatch(text, -1) {
				have[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	var errs []error
	for _, h := range set.Hooks {
		for _, name := range h.Tests {
			if !have[name] {
				errs = append(errs, fmt.Errorf("%s: hook %s: no test %s under server/ or test/: write it, or name the one that fails without the hook", h.Source, h.Name, name))
			}
		}
	}
	return errors.Join(errs...)
}

func (t *tool) diff(version string) error {
	p, _, err := t.patch(version)
	if err != nil {
		return err
	}
	for _, f := range p.Files {
		fmt.Fprint(t.out, f.Diff())
	}
	for _, name := range slices.Sorted(maps.Keys(p.Glue)) {
		fmt.Fprintf(t.out, "glue: %s\n", name)
	}
	return nil
}

// drift fails only where an anchor is lost; a changed declaration is for a
// person to read.
func (t *tool) drift(older, newer string) error {
	set, err := t.load()
	if err != nil {
		return err
	}
	from, err := t.upstream(older)
	if err != nil {
		return err
	}
	to, err := t.upstream(newer)
	if err != nil {
		return err
	}
	count := map[hooks.Change]int{}
	shown := map[string]bool{}
	var errs []error
	for _, d := range set.Drift(from, to, newer) {
		count[d.Change]++
		anchor := "holds"
		if d.Err != nil {
			anchor = "lost"
			errs = append(errs, d.Err)
		}
		fmt.Fprintf(t.out, "%-8s anchor %-6s %s: %s, %s\n", d.Change, anchor, d.Hook.Name, d.Hook.File, d.Hook.Decl)
		// Hooks of one declaration share its diff: show it once.
		if key := d.Hook.File + d.Hook.Decl; !shown[key] {
			shown[key] = true
			for line := range strings.Lines(d.Diff) {
				fmt.Fprint(t.out, "    ", line)
			}
		}
	}
	fmt.Fprintf(t.out, "%s to %s: %d hooks: declaration the same %d, changed %d, gone %d, new %d; anchors lost %d\n",
		older, newer, count[hooks.Same]+count[hooks.Changed]+count[hooks.Gone]+count[hooks.New],
		count[hooks.Same], count[hooks.Changed], count[hooks.Gone], count[hooks.New], len(errs))
	return errors.Join(errs...)
}

func (t *tool) stats(version string) error {
	p, _, err := t.patch(version)
	if err != nil {
		return err
	}
	glue := 0
	for _, text := range p.Glue {
		glue += bytes.Count(text, []byte("\n"))
	}
	fmt.Fprintf(t.out, "upstream %s\nhooks %d\ninserted lines %d\nupstream files touched %d\nglue files %d\nglue lines %d\n",
		version, p.Hooks, p.Inserted(), len(p.Files), len(p.Glue), glue)
	return nil
}
