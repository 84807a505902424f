package hooks

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"slices"
	"strings"
)

// Anchor names a statement, struct field or literal element by what it is. It
// is compared with the parsed source, so comments, line numbers and spacing do
// not matter.
type Anchor struct {
	// Kind is the first word: define, assign, call, if, for, range, return,
	// case, field, element, start or end.
	Kind string
	// Text is the normalised rest: a name, an expression, or nothing.
	Text string
}

func (a Anchor) String() string { return strings.TrimSpace(a.Kind + " " + a.Text) }

// isZero reports whether no anchor was given.
func (a Anchor) isZero() bool { return a.Kind == "" }

func parseAnchor(text string) (Anchor, error) {
	kind, rest, _ := strings.Cut(text, " ")
	a := Anchor{Kind: kind, Text: strings.TrimSpace(rest)}
	bad := func(want string) (Anchor, error) {
		return a, fmt.Errorf("anchor %q: want %s", text, want)
	}
	switch kind {
	case "define", "field":
		if !token.IsIdentifier(a.Text) {
			return bad(kind + " NAME")
		}
		return a, nil
	case "start", "end":
		if a.Text != "" {
			return bad(kind + " and nothing else")
		}
		return a, nil
	case "for", "return":
		if a.Text == "" {
			return a, nil
		}
	case "assign", "call", "if", "range", "case", "element":
	default:
		return bad("one of define, assign, call, if, for, range, return, case, field, element, start, end")
	}
	// The arguments of a call are a list of expressions, which a return has too.
	expr, err := parser.ParseExpr("f(" + a.Text + ")")
	if err != nil {
		return bad(kind + " EXPR, where EXPR is Go")
	}
	args := expr.(*ast.CallExpr).Args
	if len(args) == 0 || len(args) > 1 && kind != "return" {
		return bad(kind + " EXPR")
	}
	a.Text = printExprs(args)
	return a, nil
}

// printExprs prints expressions in one canonical line. The empty file set makes
// the printer forget where the source had its line breaks.
func printExprs(list []ast.Expr) string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = printNode(e)
	}
	return strings.Join(out, ", ")
}

// printNode prints a node in one line.
func printNode(n any) string {
	return strings.Join(strings.Fields(printLines(n)), " ")
}

// printLines prints a node as go/printer breaks lines, whatever the source did.
func printLines(n any) string {
	var b strings.Builder
	// Raw: else one longer name would realign, and so change, its neighbours.
	raw := printer.Config{Mode: printer.RawFormat}
	// Printing a parsed node to memory cannot fail.
	_ = raw.Fprint(&b, token.NewFileSet(), n)
	return b.String()
}

// find returns the nodes in scope that the anchor names. Only members of a
// statement list, a struct or a literal count: a line cannot be inserted before
// the init statement of an if.
func (a Anchor) find(scope ast.Node) []ast.Node {
	var found []ast.Node
	switch a.Kind {
	case "start", "end":
		// A position in a block is the block's; place tells the two apart.
		if open, _ := braces(scope); open.IsValid() {
			found = append(found, scope)
		}
		return found
	case "field":
		if fields := structFields(scope); fields != nil {
			for _, f := range fields.List {
				if a.matchesField(f) {
					found = append(found, f)
				}
			}
		}
		return found
	}
	ast.Inspect(scope, func(n ast.Node) bool {
		var list []ast.Stmt
		switch n := n.(type) {
		case *ast.BlockStmt:
			list = n.List
		case *ast.CaseClause:
			list = n.Body
		case *ast.CommClause:
			list = n.Body
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && a.Kind == "element" && printNode(kv.Key) == a.Text {
					found = append(found, e)
				}
			}
		}
		for _, stmt := range list {
			if a.matches(stmt) {
				found = append(found, stmt)
			}
		}
		return true
	})
	slices.SortFunc(found, func(a, b ast.Node) int { return int(a.Pos() - b.Pos()) })
	return found
}

// matches reports whether the anchor names this statement.
func (a Anchor) matches(stmt ast.Stmt) bool {
	is := func(e ast.Expr) bool { return e != nil && printNode(e) == a.Text }
	switch s := stmt.(type) {
	case *ast.LabeledStmt:
		// The label belongs to its statement: nothing may come between.
		return a.matches(s.Stmt)
	case *ast.AssignStmt:
		kind := "assign"
		if s.Tok == token.DEFINE {
			kind = "define"
		}
		return a.Kind == kind && slices.ContainsFunc(s.Lhs, is)
	case *ast.DeclStmt:
		return a.Kind == "define" && declares(s, a.Text)
	case *ast.ExprStmt:
		call, ok := s.X.(*ast.CallExpr)
		return a.Kind == "call" && ok && is(call.Fun)
	case *ast.GoStmt:
		return a.Kind == "call" && is(s.Call.Fun)
	case *ast.DeferStmt:
		return a.Kind == "call" && is(s.Call.Fun)
	case *ast.IfStmt:
		return a.Kind == "if" && is(s.Cond)
	case *ast.ForStmt:
		return a.Kind == "for" && (is(s.Cond) || s.Cond == nil && a.Text == "")
	case *ast.RangeStmt:
		return a.Kind == "range" && is(s.X)
	case *ast.ReturnStmt:
		return a.Kind == "return" && (a.Text == "" || printExprs(s.Results) == a.Text)
	case *ast.CaseClause:
		return a.Kind == "case" && slices.ContainsFunc(s.List, is)
	}
	return false
}

// declares reports whether a var or const statement declares the name.
func declares(s *ast.DeclStmt, name string) bool {
	gen, ok := s.Decl.(*ast.GenDecl)
	return ok && slices.ContainsFunc(gen.Specs, func(spec ast.Spec) bool {
		value, ok := spec.(*ast.ValueSpec)
		return ok && slices.ContainsFunc(value.Names, func(id *ast.Ident) bool { return id.Name == name })
	})
}

// matchesField reports whether the anchor names this struct field. An embedded
// field goes by the name of its type.
func (a Anchor) matchesField(f *ast.Field) bool {
	if len(f.Names) == 0 {
		typ := printNode(f.Type)
		return strings.TrimPrefix(typ[strings.LastIndex(typ, ".")+1:], "*") == a.Text
	}
	return slices.ContainsFunc(f.Names, func(id *ast.Ident) bool { return id.Name == a.Text })
}

// findDecl returns the function or type that a hook names, or nil.
func findDecl(file *ast.File, decl string) ast.Node {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if decl == "func "+declName(d) && d.Body != nil {
				return d
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok && decl == "type "+t.Name.Name {
					return t
				}
			}
		}
	}
	return nil
}

// declName spells a function as hooks do.
func declName(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	return "(" + printNode(d.Recv.List[0].Type) + ")." + d.Name.Name
}

func structFields(n ast.Node) *ast.FieldList {
	if t, ok := n.(*ast.TypeSpec); ok {
		if s, ok := t.Type.(*ast.StructType); ok {
			return s.Fields
		}
	}
	return nil
}

// braces returns where the body of a function, struct or statement opens and
// closes. They are invalid for what has no braces of its own.
func braces(n ast.Node) (open, end token.Pos) {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return n.Body.Lbrace, n.Body.Rbrace
	case *ast.TypeSpec:
		if fields := structFields(n); fields != nil {
			return fields.Opening, fields.Closing
		}
	case *ast.LabeledStmt:
		return braces(n.Stmt)
	case *ast.IfStmt:
		return n.Body.Lbrace, n.Body.Rbrace
	case *ast.ForStmt:
		return n.Body.Lbrace, n.Body.Rbrace
	case *ast.RangeStmt:
		return n.Body.Lbrace, n.Body.Rbrace
	}
	return token.NoPos, token.NoPos
}
