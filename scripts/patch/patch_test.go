package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// repo is a repository and the upstream versions to patch, all made up.
type repo struct {
	tool
	t      *testing.T
	stdout bytes.Buffer
	// found is the version that fetch says it found; empty for the one asked.
	found string
	// modules is where fetch finds upstream: a directory a version, upstream for
	// those that have none of their own.
	modules string
	fetched int
}

const goMod = "module nats-trusted-proxy\n\ngo 1.26.0\n\nrequire github.com/nats-io/nats-server/v2 v2.15.2\n"

func newRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{t: t, modules: t.TempDir()}
	r.tool = tool{root: t.TempDir(), out: &r.stdout, fetch: func(version string) (module, error) {
		r.fetched++
		dir := filepath.Join(r.modules, "upstream-"+version)
		if _, err := os.Stat(dir); err != nil {
			dir = filepath.Join(r.modules, "upstream")
		}
		if r.found != "" {
			version = r.found
		}
		return module{Version: version, Dir: dir}, nil
	}}
	r.write(filepath.Join(r.root, "go.mod"), goMod)
	return r
}

// write writes a file, and the directories that it needs.
func (r *repo) write(name, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// read returns the text of a file of the repository.
func (r *repo) read(name string) string {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.root, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// do runs the tool and returns what it printed.
func (r *repo) do(args ...string) (string, error) {
	r.stdout.Reset()
	err := r.run(args)
	return r.stdout.String(), err
}

func (r *repo) mustDo(args ...string) string {
	r.t.Helper()
	out, err := r.do(args...)
	if err != nil {
		r.t.Fatalf("patch %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// TestPatchCases runs each testdata/*.txtar. Its comment may say how the tool
// is run, and what version is found. Its files are
//
//	hooks/, glue/      what server/_upstream holds
//	repo/              other files of the repository
//	upstream/          the upstream module, or upstream-V/ for one version
//	want/              what the patched tree holds, from its root
//	stdout             what the tool prints
//	error              how each line of the error begins, after any file:line
func TestPatchCases(t *testing.T) {
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			runCase(t, archive)
		})
	}
}

func runCase(t *testing.T, archive *txtar.Archive) {
	r := newRepo(t)
	args := []string{"apply"}
	for line := range strings.Lines(string(archive.Comment)) {
		if value, ok := strings.CutPrefix(line, "run: "); ok {
			args = strings.Fields(value)
		}
		if value, ok := strings.CutPrefix(line, "found: "); ok {
			r.found = strings.TrimSpace(value)
		}
	}
	want := map[string]string{}
	var stdout, wantErr string
	for _, f := range archive.Files {
		dir, rest, _ := strings.Cut(f.Name, "/")
		switch text := string(f.Data); {
		case f.Name == "stdout":
			stdout = text
		case f.Name == "error":
			wantErr = text
		case dir == "want":
			want[rest] = text
		case dir == "hooks" || dir == "glue":
			r.write(filepath.Join(r.root, patchDir, f.Name), text)
		case dir == "repo":
			r.write(filepath.Join(r.root, rest), text)
		case strings.HasPrefix(dir, "upstream"):
			r.write(filepath.Join(r.modules, f.Name), text)
		default:
			t.Fatalf("unknown file %s", f.Name)
		}
	}
	if len(want) == 0 && stdout == "" && wantErr == "" {
		t.Fatal("the case wants nothing")
	}
	got, err := r.do(args...)
	checkError(t, err, wantErr)
	if stdout != "" && got != stdout {
		t.Errorf("printed\n%swant\n%s", got, stdout)
	}
	for name, text := range want {
		if got := r.read(filepath.Join(defaultTree, name)); got != text {
			t.Errorf("%s is\n%swant\n%s", name, got, text)
		}
	}
	if _, err := os.Stat(filepath.Join(r.root, defaultTree)); err == nil && wantErr != "" {
		t.Error("a tree was written in spite of the error")
	}
}

// checkError compares an error line by line. A wanted line may leave out the
// file and line in front, and the advice at the end.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		if want != "" {
			t.Errorf("no error, want\n%s", want)
		}
		return
	}
	got := strings.Split(err.Error(), "\n")
	lines := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
	for i, line := range got {
		if i >= len(lines) || lines[i] == "" {
			t.Errorf("unwanted error: %s", line)
		} else if _, afterPosition, _ := strings.Cut(line, ": "); !strings.HasPrefix(line, lines[i]) && !strings.HasPrefix(afterPosition, lines[i]) {
			t.Errorf("error: %s\n want: %s", line, lines[i])
		}
	}
	for _, line := range lines[min(len(got), len(lines)):] {
		t.Errorf("missing error: %s", line)
	}
}
