package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	someHooks = `hook run-end
  why    w
  test   TestT
  file   server/a.go
  func   run
  before end
  insert ours()
`
	someUpstream = "package server\n\nfunc run() {\n}\n"
	somePatched  = "package server\n\nfunc run() {\n\tours()\n}\n"
)

// someRepo is a repository with one hook and one glue file.
func someRepo(t *testing.T) *repo {
	t.Helper()
	r := newRepo(t)
	r.write(filepath.Join(r.root, patchDir, "hooks/a.hooks"), someHooks)
	r.write(filepath.Join(r.root, patchDir, "glue/g.go"), "package server\n\nfunc ours() {}\n")
	r.write(filepath.Join(r.modules, "upstream/server/a.go"), someUpstream)
	r.write(filepath.Join(r.modules, "upstream/README.md"), "read me\n")
	return r
}

// snapshot lists everything in the repository with its time.
func (r *repo) snapshot() []string {
	r.t.Helper()
	var all []string
	err := filepath.WalkDir(r.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		all = append(all, fmt.Sprint(name, info.ModTime()))
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// checkTree fails unless the tree is whole and nothing lies beside it.
func (r *repo) checkTree() {
	r.t.Helper()
	if got := r.read("build/nats-server/server/a.go"); got != somePatched {
		r.t.Errorf("server/a.go is\n%s", got)
	}
	r.read("build/nats-server/README.md")
	r.read("build/nats-server/server/g.go")
	entries, err := os.ReadDir(filepath.Join(r.root, "build"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); name != "nats-server" && name != ".patch.lock" {
			r.t.Errorf("build/%s is left over", name)
		}
	}
}

func TestPatchTwiceDoesNothing(t *testing.T) {
	r := someRepo(t)
	r.mustDo("apply")
	r.checkTree()
	before, fetched := r.snapshot(), r.fetched
	out := r.mustDo("apply")
	if want := "build/nats-server: upstream v2.15.2, up to date\n"; out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	if !slices.Equal(before, r.snapshot()) {
		t.Error("the second apply touched files")
	}
	if r.fetched != fetched {
		t.Error("the second apply asked for upstream, which takes time")
	}
}

// TestPatchRepairs damages what apply wrote, as killed runs and people do.
func TestPatchRepairs(t *testing.T) {
	for name, damage := range map[string]func(r *repo){
		"half-written tree": func(r *repo) {
			r.write(filepath.Join(r.root, "build/.nats-server.new-123/server/a.go"), "package ser")
		},
		"killed between the renames": func(r *repo) {
			from := filepath.Join(r.root, "build/nats-server")
			if err := os.Rename(from, filepath.Join(r.root, "build/.nats-server.old-123")); err != nil {
				r.t.Fatal(err)
			}
		},
		"no stamp": func(r *repo) {
			r.remove("build/nats-server/.patched")
		},
		"file edited": func(r *repo) {
			r.write(filepath.Join(r.root, "build/nats-server/server/a.go"), "package server // mine\n")
		},
		"file edited, of the same size": func(r *repo) {
			name := filepath.Join(r.root, "build/nats-server/server/a.go")
			r.write(name, strings.Replace(somePatched, "ours", "mine", 1))
			later := time.Now().Add(time.Second)
			if err := os.Chtimes(name, later, later); err != nil {
				r.t.Fatal(err)
			}
		},
		"file removed": func(r *repo) {
			r.remove("build/nats-server/README.md")
		},
		"file added": func(r *repo) {
			r.write(filepath.Join(r.root, "build/nats-server/server/b.go"), "package server\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := someRepo(t)
			r.mustDo("apply")
			damage(r)
			r.mustDo("apply")
			r.checkTree()
			if _, err := os.Stat(filepath.Join(r.root, "build/nats-server/server/b.go")); err == nil {
				t.Error("server/b.go, which was added, is still there")
			}
		})
	}
}

func (r *repo) remove(name string) {
	r.t.Helper()
	if err := os.Remove(filepath.Join(r.root, name)); err != nil {
		r.t.Fatal(err)
	}
}

// TestPatchFollowsItsInputs changes each thing that the tree is made from.
func TestPatchFollowsItsInputs(t *testing.T) {
	r := someRepo(t)
	r.mustDo("apply")
	for _, change := range []struct{ name, text string }{
		{"server/_upstream/hooks/a.hooks", "# changed\n" + someHooks},
		{"server/_upstream/glue/g_test.go", "package server\n"},
		{"scripts/patch/hooks/hooks.go", "package hooks\n"},
		{"scripts/patch/main.go", "package main\n"},
	} {
		r.write(filepath.Join(r.root, change.name), change.text)
		if out := r.mustDo("apply"); strings.Contains(out, "up to date") {
			t.Errorf("a changed %s goes unnoticed", change.name)
		}
	}
	r.write(filepath.Join(r.root, "scripts/patch/main_test.go"), "package main\n")
	if out := r.mustDo("apply"); !strings.Contains(out, "up to date") {
		t.Error("a changed test of the tool makes a new tree")
	}
	r.write(filepath.Join(r.root, "go.mod"), strings.Replace(goMod, "v2.15.2", "v2.15.3", 1))
	if out := r.mustDo("apply"); !strings.HasPrefix(out, "build/nats-server: upstream v2.15.3,") {
		t.Errorf("go.mod requires v2.15.3, but: %s", out)
	}
}

// TestPatchKeepsTheTreeOnError fails to apply, and has the old tree still.
func TestPatchKeepsTheTreeOnError(t *testing.T) {
	r := someRepo(t)
	r.mustDo("apply")
	hooksFile := filepath.Join(r.root, patchDir, "hooks/a.hooks")
	r.write(hooksFile, strings.Replace(someHooks, "before end", "before if gone", 1))
	if _, err := r.do("apply"); err == nil {
		t.Fatal("no error")
	}
	r.checkTree()
}

func TestPatchWritesGoWork(t *testing.T) {
	r := someRepo(t)
	r.mustDo("apply")
	want := workHeader + "\ngo 1.26.0\n\nuse .\n\nreplace github.com/nats-io/nats-server/v2 => ./build/nats-server\n"
	if got := r.read("go.work"); got != want {
		t.Errorf("go.work is\n%swant\n%s", got, want)
	}

	out := r.mustDo("apply", "-upstream", "v2.14.9")
	if !strings.HasPrefix(out, "build/v2.14.9/nats-server: upstream v2.14.9,") {
		t.Errorf("printed %s", out)
	}
	want = workHeader + "\ngo 1.26.0\n\nuse ../..\n\nreplace github.com/nats-io/nats-server/v2 => ./nats-server\n"
	if got := r.read("build/v2.14.9/go.work"); got != want {
		t.Errorf("build/v2.14.9/go.work is\n%swant\n%s", got, want)
	}

	// A killed run may leave the tree without its go.work.
	r.remove("go.work")
	r.mustDo("apply")
	r.read("go.work")
}

func TestPatchRefusesForeignPlaces(t *testing.T) {
	r := someRepo(t)
	home := t.TempDir()
	r.write(filepath.Join(home, "diary/today.txt"), "dear diary")
	for _, out := range []string{filepath.Join(home, "diary"), r.root, filepath.Join(r.root, "build")} {
		if _, err := r.do("apply", "-out", out); err == nil || !strings.Contains(err.Error(), "holds something else") {
			t.Errorf("-out %s: %v", out, err)
		}
	}
	r.write(filepath.Join(home, "go.work"), "go 1.26.0\n")
	if _, err := r.do("apply", "-out", filepath.Join(home, "tree")); err == nil || !strings.Contains(err.Error(), "is not of this tool") {
		t.Errorf("somebody's go.work: %v", err)
	}
	if err := os.Remove(filepath.Join(home, "go.work")); err != nil {
		t.Fatal(err)
	}
	// Twice: the second run meets a tree of ours.
	for _, version := range []string{"v2.15.2", "v2.14.9"} {
		r.mustDo("apply", "-upstream", version, "-out", filepath.Join(home, "tree"))
	}
}

func TestPatchConcurrently(t *testing.T) {
	r := someRepo(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			one := tool{root: r.root, out: new(strings.Builder), fetch: func(version string) (module, error) {
				return module{Version: version, Dir: filepath.Join(r.modules, "upstream")}, nil
			}}
			errs[i] = one.run([]string{"apply"})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	r.checkTree()
}

// TestHooksInsertOnly patches the real upstream in memory and takes the
// insertions out again, line by line, by its own reckoning.
func TestHooksInsertOnly(t *testing.T) {
	r := realRepo(t)
	for _, version := range supported(t, r) {
		p, upstream, err := r.patch(version)
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		for _, f := range p.Files {
			original, err := fs.ReadFile(upstream, f.Path)
			if err != nil {
				t.Fatal(err)
			}
			rest := strings.SplitAfter(string(original), "\n")
			extra := 0
			for line := range strings.Lines(f.Text()) {
				if len(rest) > 0 && line == rest[0] {
					rest = rest[1:]
				} else {
					extra++
				}
			}
			if !slices.Equal(rest, []string{""}) || extra != f.Inserted() {
				t.Errorf("%s %s: %d lines differ, %d are inserted, and %q of upstream's is missing", version, f.Path, extra, f.Inserted(), rest[0])
			}
		}
	}
}

// TestHooksApply is the promise of CI: the hooks fit each supported version.
func TestHooksApply(t *testing.T) {
	r := realRepo(t)
	for _, version := range supported(t, r) {
		if p, _, err := r.patch(version); err != nil {
			t.Errorf("%s: %v", version, err)
		} else if p.Hooks == 0 {
			t.Errorf("%s: no hooks", version)
		}
	}
}

// TestHooksStayOffTheHotPath compares the functions that run for every message
// with upstream's, in the patched files. It does not ask the tool what it
// forbids.
func TestHooksStayOffTheHotPath(t *testing.T) {
	r := realRepo(t)
	for _, version := range supported(t, r) {
		p, upstream, err := r.patch(version)
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		for _, f := range p.Files {
			if f.Path == "server/client_proxyproto.go" {
				t.Errorf("%s: a hook is in upstream's PROXY protocol code", version)
			}
			original, err := fs.ReadFile(upstream, f.Path)
			if err != nil {
				t.Fatal(err)
			}
			want, got := hotFuncs(t, string(original)), hotFuncs(t, f.Text())
			for name, text := range want {
				if got[name] != text {
					t.Errorf("%s %s: a hook is in %s", version, f.Path, name)
				}
			}
		}
	}
}

// TestHooksKnowTheHotPath fails when upstream renames what must stay as it is,
// which would leave the other test with nothing to compare.
func TestHooksKnowTheHotPath(t *testing.T) {
	r := realRepo(t)
	for _, version := range supported(t, r) {
		upstream, err := r.upstream(version)
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, name := range []string{"server/client.go", "server/parser.go"} {
			text, err := fs.ReadFile(upstream, name)
			if err != nil {
				t.Fatal(err)
			}
			maps.Copy(found, hotFuncs(t, string(text)))
		}
		for _, name := range []string{"readLoop", "writeLoop", "flushOutbound", "collapsePtoNB", "processInboundClientMsg", "processPub", "parse"} {
			if found[name] == "" {
				t.Errorf("%s: no function %s: see what runs for every message now", version, name)
			}
		}
	}
}

// hotFuncs returns the source of the functions that run for every message, by
// name. What the parser does to clients that are not authenticated is left out.
func hotFuncs(t *testing.T, text string) map[string]string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	hot := regexp.MustCompile(`^(readLoop|writeLoop|flushOutbound|collapsePtoNB.*|processInboundClientMsg|processPub.*|parse)$`)
	found := map[string]string{}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv == nil || !hot.MatchString(f.Name.Name) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if s, ok := n.(*ast.IfStmt); ok && f.Name.Name == "parse" {
				if cond, ok := s.Cond.(*ast.Ident); ok && cond.Name == "authSet" {
					s.Body.List = nil
				}
			}
			return true
		})
		var b strings.Builder
		if err := printer.Fprint(&b, token.NewFileSet(), f); err != nil {
			t.Fatal(err)
		}
		found[f.Name.Name] = b.String()
	}
	return found
}

// supported returns the upstream versions that the hooks must fit.
func supported(t *testing.T, r *repo) []string {
	t.Helper()
	out, err := exec.Command("../upstreams").Output()
	if err != nil {
		t.Fatalf("scripts/upstreams: %v", err)
	}
	versions := strings.Fields(string(out))
	for _, version := range versions {
		if _, err := r.fetch(version); err != nil {
			t.Fatal(err)
		}
	}
	return versions
}

// realRepo is this repository.
func realRepo(t *testing.T) *repo {
	t.Helper()
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		t.Fatal("no caller")
	}
	root, err := findRoot(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	r := &repo{t: t}
	r.tool = tool{root: root, fetch: fetcher(root), out: &r.stdout}
	return r
}
