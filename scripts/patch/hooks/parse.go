package hooks

import (
	"errors"
	"fmt"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Hook is one insertion into one upstream declaration.
type Hook struct {
	Name string
	// Source is where the hook is written, as file:line, for messages.
	Source string
	// Why says what breaks without the hook, and why glue alone cannot do it.
	Why string
	// Tests names the Go tests that fail without the hook.
	Tests []string
	// File is the upstream file, slash separated, relative to the module.
	File string
	// Decl is the enclosing declaration, such as "func (*Server).Start" or
	// "type Options".
	Decl string
	// Before tells an insertion before the anchor from one after it.
	Before bool
	Anchor Anchor
	// Where narrows the search to the inside of one statement. Its zero value
	// means the whole declaration.
	Where Anchor
	// ColdPath is the author's claim that an insertion into the parser lies
	// where no message passes. Apply checks the claim.
	ColdPath bool
	// Imports are import specs that the inserted code needs, as Go writes them.
	Imports []string
	// Since and Until bound the upstream versions that need the hook. Empty
	// means no bound; Until is exclusive.
	Since, Until string
	// Insert is the code, one line each.
	Insert []string
}

// appliesTo reports whether the hook is meant for this upstream version.
func (h *Hook) appliesTo(version string) bool {
	return (h.Since == "" || compareVersions(version, h.Since) >= 0) &&
		(h.Until == "" || compareVersions(version, h.Until) < 0)
}

// errorf returns an error that starts with where the hook is and what it is
// about.
func (h *Hook) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: hook %s: %s, %s: %s", h.Source, h.Name, h.File, h.Decl, fmt.Sprintf(format, args...))
}

// Set is everything that makes up the patch.
type Set struct {
	// Hooks is sorted by hook file and then by name, so that the result does
	// not depend on the order in a file.
	Hooks []Hook
	// Glue holds the files that join upstream's package server, by base name.
	Glue map[string][]byte
}

// Load reads hooks/*.hooks and glue/*.go. The error holds everything that is
// wrong, not only the first thing.
func Load(fsys fs.FS) (*Set, error) {
	names, err := fs.Glob(fsys, "hooks/*.hooks")
	if err != nil {
		return nil, err
	}
	set := &Set{Glue: map[string][]byte{}}
	first := map[string]string{}
	var errs []error
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		parsed, err := Parse(path.Base(name), string(text))
		errs = append(errs, err)
		slices.SortStableFunc(parsed, func(a, b Hook) int { return strings.Compare(a.Name, b.Name) })
		for _, h := range parsed {
			if other, ok := first[h.Name]; ok {
				errs = append(errs, fmt.Errorf("%s: hook %s: the name is taken by %s: hook names are unique over all files", h.Source, h.Name, other))
				continue
			}
			first[h.Name] = h.Source
			set.Hooks = append(set.Hooks, h)
		}
	}
	names, err = fs.Glob(fsys, "glue/*.go")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		set.Glue[path.Base(name)] = text
		errs = append(errs, checkGlue(name, text))
	}
	return set, errors.Join(errs...)
}

// Parse reads one hook file. It returns the hooks that are well formed beside
// the errors of the others.
func Parse(name, text string) ([]Hook, error) {
	var (
		hooks []Hook
		errs  []error
		p     *hookParser
	)
	finish := func() {
		if p == nil {
			return
		}
		h, err := p.finish()
		if err != nil {
			errs = append(errs, err)
		} else {
			hooks = append(hooks, h)
		}
		p = nil
	}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		at := fmt.Sprintf("%s:%d", name, i+1)
		body := strings.TrimLeft(line, " \t")
		switch indent := line[:len(line)-len(body)]; {
		case body == "" || body[0] == '#':
		case indent == "":
			finish()
			key, value, _ := strings.Cut(body, " ")
			if key != "hook" {
				errs = append(errs, fmt.Errorf("%s: %q starts no hook: want `hook NAME`, or indent the key", at, key))
				continue
			}
			p = &hookParser{hook: Hook{Name: strings.TrimSpace(value), Source: at}}
		case p == nil:
			errs = append(errs, fmt.Errorf("%s: %q stands outside a hook: start with `hook NAME`", at, body))
		default:
			p.line(indent, body)
		}
	}
	finish()
	return hooks, errors.Join(errs...)
}

// hookParser gathers the keys of one hook.
type hookParser struct {
	hook   Hook
	indent string
	keys   []keyed
}

// keyed is one key with its value and, for those that go on, the lines below.
type keyed struct {
	key, value string
	more       []string
}

// line takes one line of the hook: a key at the first key's indentation, or the
// continuation of the last key when deeper.
func (p *hookParser) line(indent, body string) {
	if p.indent == "" {
		p.indent = indent
	}
	if len(p.keys) > 0 && len(indent) > len(p.indent) {
		last := &p.keys[len(p.keys)-1]
		last.more = append(last.more, indent+body)
		return
	}
	key, value, _ := strings.Cut(body, " ")
	p.keys = append(p.keys, keyed{key: key, value: strings.TrimSpace(value)})
}

var (
	hookName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)
	funcName = regexp.MustCompile(`^(\(\*?\w+\)\.)?\w+$`)
	testName = regexp.MustCompile(`^(Test|Benchmark|Fuzz)\w*$`)
)

// finish checks that the hook is whole and allowed, before any upstream source
// is looked at.
func (p *hookParser) finish() (Hook, error) {
	h := p.hook
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: hook %s: %s", h.Source, h.Name, fmt.Sprintf(format, args...)))
	}
	if !hookName.MatchString(h.Name) {
		fail("bad name: want lower-case words joined by dashes, such as listeners-start")
	}
	seen := map[string]bool{}
	once := func(kind string) {
		if seen[kind] {
			fail("%s is given twice", kind)
		}
		seen[kind] = true
	}
	anchor := func(text string) Anchor {
		a, err := parseAnchor(text)
		if err != nil {
			fail("%v", err)
		}
		return a
	}
	for _, k := range p.keys {
		switch k.key {
		case "why", "insert", "import", "test":
		default:
			if len(k.more) > 0 {
				fail("%s takes one line: check the indentation of %q", k.key, strings.TrimSpace(k.more[0]))
			}
		}
		switch k.key {
		case "why":
			once("why")
			h.Why = joinLines(k)
		case "test":
			once("test")
			h.Tests = strings.Fields(joinLines(k))
		case "file":
			once("file")
			h.File = k.value
		case "func":
			once("func or type")
			h.Decl = "func " + k.value
			if !funcName.MatchString(k.value) {
				fail("func %s: want NAME, (*T).NAME or (T).NAME", k.value)
			}
		case "type":
			once("func or type")
			h.Decl = "type " + k.value
			if !token.IsIdentifier(k.value) {
				fail("type %s: want the name of a type", k.value)
			}
		case "before", "after":
			once("before or after")
			h.Before = k.key == "before"
			h.Anchor = anchor(k.value)
		case "where":
			once("where")
			h.Where = anchor(k.value)
		case "cold-path":
			once("cold-path")
			h.ColdPath = true
			if k.value != "yes" {
				fail("cold-path %s: the only value is yes", k.value)
			}
		case "import":
			for _, spec := range append([]string{k.value}, k.more...) {
				if spec = strings.TrimSpace(spec); spec != "" {
					h.Imports = append(h.Imports, spec)
				}
			}
		case "since", "until":
			once(k.key)
			if !validVersion(k.value) {
				fail("%s %s: want a version such as v2.15.0", k.key, k.value)
			}
			if k.key == "since" {
				h.Since = k.value
			} else {
				h.Until = k.value
			}
		case "insert":
			once("insert")
			if k.value != "" {
				h.Insert = append(h.Insert, k.value)
			}
			h.Insert = append(h.Insert, dedent(k.more)...)
		default:
			fail("unknown key %q", k.key)
		}
	}
	for _, missing := range []struct {
		key   string
		empty bool
	}{
		{"why", h.Why == ""},
		{"test", len(h.Tests) == 0},
		{"file", h.File == ""},
		{"func or type", h.Decl == ""},
		{"before or after", !seen["before or after"]},
		{"insert", len(h.Insert) == 0},
	} {
		if missing.empty {
			fail("%s is missing", missing.key)
		}
	}
	for _, name := range h.Tests {
		if !testName.MatchString(name) {
			fail("test %s: want the name of a Go test", name)
		}
	}
	if len(errs) == 0 {
		// These speak of the whole hook, so they wait until it is whole.
		errs = append(errs, checkPlace(&h), checkForbidden(&h), checkInsert(&h), checkImports(&h))
	}
	return h, errors.Join(errs...)
}

// joinLines makes one line of a key that goes on over several.
func joinLines(k keyed) string {
	return strings.Join(strings.Fields(k.value+" "+strings.Join(k.more, " ")), " ")
}

// dedent removes the indentation that all lines share.
func dedent(lines []string) []string {
	var shared string
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
		if i == 0 {
			shared = indent
		}
		for !strings.HasPrefix(indent, shared) {
			shared = shared[:len(shared)-1]
		}
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = line[len(shared):]
	}
	return out
}
