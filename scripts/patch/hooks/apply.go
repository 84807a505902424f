package hooks

import (
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// Patch is the outcome of a Set on one upstream version.
type Patch struct {
	// Version is the upstream version.
	Version string
	// Hooks counts those that the version needs.
	Hooks int
	// Files holds the patched upstream files, sorted by path.
	Files []File
	// Glue holds the added files, by path.
	Glue map[string][]byte
}

// Inserted counts the lines that the patch inserts into upstream's files.
func (p *Patch) Inserted() int {
	n := 0
	for _, f := range p.Files {
		n += f.Inserted()
	}
	return n
}

// File is an upstream file with lines inserted.
type File struct {
	Path  string
	lines []line
}

// line is one line with its newline.
type line struct {
	text     string
	inserted bool
}

// Text returns the patched file.
func (f *File) Text() string { return joinText(f.lines, false) }

// Original returns the file without the inserted lines.
func (f *File) Original() string { return joinText(f.lines, true) }

// Inserted counts the inserted lines.
func (f *File) Inserted() int {
	n := 0
	for _, l := range f.lines {
		if l.inserted {
			n++
		}
	}
	return n
}

func joinText(lines []line, originalOnly bool) string {
	var b strings.Builder
	for _, l := range lines {
		if !l.inserted || !originalOnly {
			b.WriteString(l.text)
		}
	}
	return b.String()
}

// Apply patches the upstream module whose root is the given file system, in
// memory. The error holds every hook that does not fit.
func (s *Set) Apply(upstream fs.FS, version string) (*Patch, error) {
	p := &Patch{Version: version, Glue: map[string][]byte{}}
	byFile := map[string][]*Hook{}
	for i := range s.Hooks {
		if h := &s.Hooks[i]; h.appliesTo(version) {
			p.Hooks++
			byFile[h.File] = append(byFile[h.File], h)
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(byFile)) {
		file, err := patchFile(upstream, version, name, byFile[name])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.Files = append(p.Files, *file)
	}
	for _, base := range slices.Sorted(maps.Keys(s.Glue)) {
		name := path.Join("server", base)
		if _, err := fs.Stat(upstream, name); err == nil {
			errs = append(errs, fmt.Errorf("glue %s: upstream %s has a %s of its own: rename the glue file", base, version, name))
			continue
		}
		p.Glue[name] = s.Glue[base]
	}
	return p, errors.Join(errs...)
}

// source is one parsed upstream file.
type source struct {
	version string
	lines   []string
	fset    *token.FileSet
	ast     *ast.File
}

func readSource(upstream fs.FS, version, name string, mode parser.Mode) (*source, error) {
	text, err := fs.ReadFile(upstream, name)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, mode|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &source{version, strings.SplitAfter(string(text), "\n"), fset, file}, nil
}

func (src *source) line(pos token.Pos) int { return src.fset.Position(pos).Line }

// before returns the text on the line of pos up to it, and after the text from
// it on.
func (src *source) before(pos token.Pos) string {
	p := src.fset.Position(pos)
	return src.lines[p.Line-1][:p.Column-1]
}

func (src *source) after(pos token.Pos) string {
	p := src.fset.Position(pos)
	return src.lines[p.Line-1][p.Column-1:]
}

// insertion is code and the line, counted from one, that it goes before.
type insertion struct {
	line int
	code []string
	hook *Hook
}

func patchFile(upstream fs.FS, version, name string, hooks []*Hook) (*File, error) {
	src, err := readSource(upstream, version, name, parser.ParseComments)
	if err != nil {
		var errs []error
		for _, h := range hooks {
			next := "see where its code went and give the hook a new file"
			if !errors.Is(err, fs.ErrNotExist) {
				next = "upstream's file cannot be used"
			}
			errs = append(errs, h.errorf("in %s: %v: %s", version, err, next))
		}
		return nil, errors.Join(errs...)
	}
	var (
		places []insertion
		errs   []error
	)
	for _, h := range hooks {
		place, err := src.place(h)
		places = append(places, place)
		errs = append(errs, err)
	}
	place, err := src.placeImports(hooks)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	slices.SortStableFunc(places, func(a, b insertion) int { return a.line - b.line })
	if len(place.code) > 0 {
		places = append([]insertion{place}, places...)
	}
	file := &File{Path: name}
	for _, text := range src.lines {
		file.lines = append(file.lines, line{text: text})
	}
	original := file.Text()
	formatted, err := format.Source([]byte(original))
	clean := err == nil && string(formatted) == original
	// From the last to the first: then the lines before keep their numbers.
	for _, place := range slices.Backward(places) {
		errs = append(errs, file.insert(place, clean))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return file, file.verify(original)
}

// insert adds the code so that gofmt has nothing to say about upstream's lines.
// Where a plain insertion would have gofmt realign its neighbours, empty lines
// set it apart.
func (f *File) insert(place insertion, clean bool) error {
	code := make([]line, len(place.code))
	for i, text := range place.code {
		code[i] = line{text + "\n", true}
	}
	blank := []line{{"\n", true}}
	for _, try := range [][]line{
		code,
		slices.Concat(blank, code),
		slices.Concat(code, blank),
		slices.Concat(blank, code, blank),
	} {
		lines := slices.Insert(slices.Clone(f.lines), place.line-1, try...)
		if !clean {
			f.lines = lines
			return nil
		}
		formatted, err := format.Source([]byte(joinText(lines, false)))
		if err != nil {
			return place.hook.errorf("the file does not parse with the inserted code: %v", err)
		}
		if adopt(lines, string(formatted)) {
			f.lines = lines
			return nil
		}
	}
	return place.hook.errorf("gofmt would change upstream's lines around the inserted ones: choose an anchor beside an empty line")
}

// adopt takes the formatted text of the inserted lines, and reports whether the
// others are as they were.
func adopt(lines []line, formatted string) bool {
	texts := strings.SplitAfter(formatted, "\n")
	if len(texts) != len(lines) {
		return false
	}
	for i, text := range texts {
		if !lines[i].inserted && lines[i].text != text {
			return false
		}
	}
	for i, text := range texts {
		lines[i].text = text
	}
	return true
}

// verify is the last look at the promise of insert-only.
func (f *File) verify(original string) error {
	if f.Original() != original {
		return fmt.Errorf("%s: the patched file without the inserted lines differs from upstream's: a defect of this tool", f.Path)
	}
	if _, err := parser.ParseFile(token.NewFileSet(), f.Path, f.Text(), parser.SkipObjectResolution); err != nil {
		return fmt.Errorf("the patched file does not parse: %w", err)
	}
	return nil
}

const moved = "upstream moved: compare the declaration with `go run ./scripts/patch drift OLD NEW` and give the hook a new anchor"

// place finds the one line that the hook's code goes before.
func (src *source) place(h *Hook) (insertion, error) {
	decl := findDecl(src.ast, h.Decl)
	if decl == nil {
		return insertion{}, h.errorf("in %s: no such declaration with a body in the file: see where its code went and give the hook a new file, func or type", src.version)
	}
	scope, inside := decl, ""
	if !h.Where.isZero() {
		node, err := src.only(h, decl, h.Where, "")
		if err != nil {
			return insertion{}, err
		}
		scope, inside = node, fmt.Sprintf(" inside %q", h.Where)
	}
	node, err := src.only(h, scope, h.Anchor, inside)
	if err != nil {
		return insertion{}, err
	}
	at, indent, ok := src.lineFor(h, node)
	if !ok {
		return insertion{}, h.errorf("in %s: %q shares its line (%d) with other code, and only whole lines are inserted: choose a neighbour", src.version, h.Anchor, src.line(node.Pos()))
	}
	if h.Decl == parserFunc && !src.isCold(decl, at) {
		return insertion{}, h.errorf("in %s: forbidden: line %d is outside `if %s`, where every message passes", src.version, at, coldGuard)
	}
	code := make([]string, len(h.Insert))
	for i, text := range h.Insert {
		code[i] = strings.TrimRight(indent+text, " \t")
	}
	return insertion{at, code, h}, nil
}

// only returns the one node in scope that the anchor names.
func (src *source) only(h *Hook, scope ast.Node, a Anchor, inside string) (ast.Node, error) {
	found := a.find(scope)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, h.errorf("in %s: looked for %q%s: found nothing: %s", src.version, a, inside, moved)
	}
	at := make([]string, len(found))
	for i, n := range found {
		at[i] = fmt.Sprint(src.line(n.Pos()))
	}
	return nil, h.errorf("in %s: looked for %q%s: found %d, at lines %s: narrow it with where, or choose a neighbour; if it was one before, %s",
		src.version, a, inside, len(found), strings.Join(at, ", "), moved)
}

// lineFor returns the line that code at the anchor goes before, and how deep
// the code is indented.
func (src *source) lineFor(h *Hook, node ast.Node) (at int, indent string, ok bool) {
	pos, end := node.Pos(), node.End()
	switch h.Anchor.Kind {
	case "start":
		open, _ := braces(node)
		return src.line(open) + 1, src.indent(open) + "\t", endsLine(src.after(open + 1))
	case "end":
		_, closing := braces(node)
		return src.line(closing), src.indent(closing) + "\t", isBlank(src.before(closing))
	}
	if h.Before {
		return src.commentsAbove(src.line(pos)), src.indent(pos), isBlank(src.before(pos))
	}
	rest := src.after(end)
	if h.Anchor.Kind == "element" {
		rest, ok = strings.CutPrefix(rest, ",")
		return src.line(end) + 1, src.indent(pos), ok && endsLine(rest)
	}
	return src.line(end) + 1, src.indent(pos), endsLine(rest)
}

func (src *source) indent(pos token.Pos) string {
	text := src.lines[src.line(pos)-1]
	return text[:len(text)-len(strings.TrimLeft(text, " \t"))]
}

func isBlank(text string) bool { return strings.TrimSpace(text) == "" }

// endsLine reports whether nothing but a comment follows on the line.
func endsLine(text string) bool {
	return isBlank(text) || strings.HasPrefix(strings.TrimSpace(text), "//")
}

// commentsAbove returns the first line of the comments directly above a line:
// they speak of the statement, and code is not put between the two.
func (src *source) commentsAbove(at int) int {
	starts := map[int]int{}
	for _, group := range src.ast.Comments {
		for _, c := range group.List {
			if isBlank(src.before(c.Pos())) && isBlank(src.after(c.End())) {
				starts[src.line(c.End())] = src.line(c.Pos())
			}
		}
	}
	for starts[at-1] != 0 {
		at = starts[at-1]
	}
	return at
}

// isCold reports whether code inserted before the line is in the parser's
// branch for clients that are not authenticated.
func (src *source) isCold(parse ast.Node, at int) bool {
	cold := false
	guard := Anchor{Kind: "if", Text: coldGuard}
	for _, n := range guard.find(parse) {
		open, closing := braces(n)
		cold = cold || src.line(open) < at && at <= src.line(closing)
	}
	return cold
}

// placeImports returns the insertion of the imports that the hooks need and the
// file lacks, as one group at the end of its import block.
func (src *source) placeImports(hooks []*Hook) (insertion, error) {
	have := map[string]bool{}
	for _, spec := range src.ast.Imports {
		have[printNode(spec)] = true
	}
	var (
		missing []string
		first   *Hook
	)
	for _, h := range hooks {
		for _, spec := range h.Imports {
			if !have[spec] {
				have[spec] = true
				missing = append(missing, spec)
				first = h
			}
		}
	}
	if len(missing) == 0 {
		return insertion{}, nil
	}
	importPath := func(spec string) string { return spec[strings.IndexByte(spec, '"'):] }
	slices.SortFunc(missing, func(a, b string) int { return strings.Compare(importPath(a), importPath(b)) })
	for _, decl := range src.ast.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.IMPORT || !gen.Rparen.IsValid() {
			continue
		}
		if !isBlank(src.before(gen.Rparen)) {
			return insertion{}, first.errorf("in %s: the import block is one line: the hook cannot add its imports", src.version)
		}
		code := []string{""}
		for _, spec := range missing {
			code = append(code, "\t"+spec)
		}
		return insertion{src.line(gen.Rparen), code, first}, nil
	}
	return insertion{}, first.errorf("in %s: the file has no import block: the hook cannot add its imports: call glue instead", src.version)
}
