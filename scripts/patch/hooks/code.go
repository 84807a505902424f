package hooks

import (
	"errors"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/scanner"
	"go/token"
	"regexp"
	"strings"
)

// checkPlace refuses anchors that cannot occur in the declaration.
func checkPlace(h *Hook) error {
	isType := strings.HasPrefix(h.Decl, "type ")
	switch kind := h.Anchor.Kind; {
	case isType && kind != "field" && kind != "start" && kind != "end":
		return h.errorf("a type takes field, start or end, not %s", kind)
	case isType && !h.Where.isZero():
		return h.errorf("where has no use in a type")
	case !isType && kind == "field":
		return h.errorf("field has no use in a function: name the struct with type")
	}
	switch h.Where.Kind {
	case "start", "end", "field", "element":
		return h.errorf("where wants a statement, not %s", h.Where.Kind)
	}
	return nil
}

// The functions that run for every message or every read and write. They stay
// upstream's, byte for byte, so the patch costs a message nothing.
var (
	hotFuncs    = []string{"readLoop", "writeLoop", "flushOutbound", "processInboundClientMsg"}
	hotPrefixes = []string{"collapsePtoNB", "processPub"}
)

const (
	// proxyProtoFile is upstream's own PROXY protocol reader, which the project
	// goes around rather than through.
	proxyProtoFile = "server/client_proxyproto.go"
	// parserFunc is hot, but for the branch of clients that are not
	// authenticated yet.
	parserFunc = "func (*client).parse"
	// coldGuard is the condition of that branch.
	coldGuard = "authSet"
)

// checkForbidden refuses hooks on the message path.
func checkForbidden(h *Hook) error {
	if h.File == proxyProtoFile {
		return h.errorf("forbidden: upstream's own PROXY protocol code stays as it is")
	}
	name := h.Decl[strings.LastIndexAny(h.Decl, ". ")+1:]
	hot := false
	for _, f := range hotFuncs {
		hot = hot || strings.HasPrefix(h.Decl, "func ") && name == f
	}
	for _, prefix := range hotPrefixes {
		hot = hot || strings.HasPrefix(h.Decl, "func ") && strings.HasPrefix(name, prefix)
	}
	if hot {
		return h.errorf("forbidden: the function runs for every message and stays as it is: find a place that runs once a connection")
	}
	switch {
	case h.Decl != parserFunc && h.ColdPath:
		return h.errorf("cold-path is only for %s", parserFunc)
	case h.Decl == parserFunc && (!h.ColdPath || h.Where.isZero()):
		return h.errorf("forbidden: the parser runs for every message: only `cold-path yes` with a `where` inside `if %s` may touch it", coldGuard)
	}
	return nil
}

// errLogic is the one rule about inserted code: upstream calls, glue decides.
const errLogic = "inserted code holds logic, move it to glue"

// wrapping makes a file of inserted code. The code starts on a line of its own.
type wrapping struct{ before, after string }

var (
	asStatements = wrapping{"package p\n\nfunc _() {\n", "}\n"}
	asCases      = wrapping{"package p\n\nfunc _() {\n\tswitch {\n", "\t}\n}\n"}
	asFields     = wrapping{"package p\n\ntype _ struct {\n", "}\n"}
	asElements   = wrapping{"package p\n\nvar _ = T{\n", "}\n"}
)

// wrappingOf says what the inserted code is, which follows from where it goes.
func wrappingOf(h *Hook) wrapping {
	switch {
	case strings.HasPrefix(h.Decl, "type "):
		return asFields
	case h.Anchor.Kind == "case":
		return asCases
	case h.Anchor.Kind == "element":
		return asElements
	}
	return asStatements
}

// checkInsert parses the inserted code as what its place makes it, refuses
// everything but calls, definitions by one call, and guards on one call, and
// leaves the code as gofmt writes it.
func checkInsert(h *Hook) error {
	w := wrappingOf(h)
	src := w.before + strings.Join(h.Insert, "\n") + "\n" + w.after
	file, err := parser.ParseFile(token.NewFileSet(), "", src, parser.SkipObjectResolution)
	if err != nil {
		return h.errorf("inserted code does not parse: %s", firstSyntaxError(err, w))
	}
	// More than the one wrapping declaration means that the code closed it.
	if len(file.Decls) != 1 {
		return h.errorf("inserted code does not parse: its braces do not match")
	}
	if !plain(file.Decls[0], w) {
		return h.errorf(errLogic)
	}
	clean, err := format.Source([]byte(src))
	if err != nil {
		return h.errorf("inserted code cannot be formatted: %v", err)
	}
	code := strings.TrimSuffix(strings.TrimPrefix(string(clean), w.before), w.after)
	h.Insert = dedent(strings.Split(strings.TrimRight(code, "\n"), "\n"))
	return nil
}

// firstSyntaxError words a parser error for the inserted lines alone.
func firstSyntaxError(err error, w wrapping) string {
	var list scanner.ErrorList
	if errors.As(err, &list) && len(list) > 0 {
		return fmt.Sprintf("insert line %d: %s", list[0].Pos.Line-strings.Count(w.before, "\n"), list[0].Msg)
	}
	return err.Error()
}

// plain reports whether the wrapped code holds no logic.
func plain(decl ast.Decl, w wrapping) bool {
	switch w {
	case asFields:
		return decl.(*ast.GenDecl).Specs[0].(*ast.TypeSpec).Type.(*ast.StructType).Fields.NumFields() > 0
	case asElements:
		literal := decl.(*ast.GenDecl).Specs[0].(*ast.ValueSpec).Values[0].(*ast.CompositeLit)
		for _, e := range literal.Elts {
			kv, ok := e.(*ast.KeyValueExpr)
			if !ok || !plainCall(kv.Value) && !isName(kv.Value) {
				return false
			}
		}
		return len(literal.Elts) > 0
	case asCases:
		block := decl.(*ast.FuncDecl).Body.List
		if len(block) != 1 {
			return false
		}
		clauses := block[0].(*ast.SwitchStmt).Body.List
		for _, stmt := range clauses {
			clause := stmt.(*ast.CaseClause)
			if clause.List == nil || !plainExprs(clause.List) || !plainStmts(clause.Body) {
				return false
			}
		}
		return len(clauses) > 0
	}
	list := decl.(*ast.FuncDecl).Body.List
	return len(list) > 0 && plainStmts(list)
}

func plainStmts(list []ast.Stmt) bool {
	for _, stmt := range list {
		if !plainStmt(stmt) {
			return false
		}
	}
	return true
}

func plainStmt(stmt ast.Stmt) bool {
	switch s := stmt.(type) {
	case *ast.ExprStmt:
		return plainCall(s.X)
	case *ast.GoStmt:
		return plainCall(s.Call)
	case *ast.DeferStmt:
		return plainCall(s.Call)
	case *ast.AssignStmt:
		simple := s.Tok == token.ASSIGN || s.Tok == token.DEFINE
		return simple && len(s.Rhs) == 1 && plainCall(s.Rhs[0]) && plainExprs(s.Lhs)
	case *ast.IfStmt:
		return plainGuard(s)
	}
	return false
}

// plainGuard accepts `if CALL { leave }` and `if err := CALL; err != nil { leave }`,
// where leaving is one statement.
func plainGuard(s *ast.IfStmt) bool {
	cond := s.Cond
	if call := errCall(s); call != nil {
		cond = call
	} else if s.Init != nil {
		return false
	}
	if not, ok := cond.(*ast.UnaryExpr); ok && not.Op == token.NOT {
		cond = not.X
	}
	if s.Else != nil || !plainCall(cond) || len(s.Body.List) != 1 {
		return false
	}
	switch leave := s.Body.List[0].(type) {
	case *ast.ReturnStmt:
		return plainExprs(leave.Results)
	case *ast.BranchStmt:
		return leave.Tok == token.CONTINUE || leave.Tok == token.GOTO
	}
	return false
}

// errCall returns CALL of the form that checks an error, nil for another form.
func errCall(s *ast.IfStmt) ast.Expr {
	init, ok := s.Init.(*ast.AssignStmt)
	if !ok || init.Tok != token.DEFINE || len(init.Lhs) != 1 || len(init.Rhs) != 1 {
		return nil
	}
	cond, ok := s.Cond.(*ast.BinaryExpr)
	if !ok || cond.Op != token.NEQ || !isIdent(init.Lhs[0], "err") || !isIdent(cond.X, "err") || !isIdent(cond.Y, "nil") {
		return nil
	}
	return init.Rhs[0]
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

func plainCall(e ast.Expr) bool {
	_, ok := e.(*ast.CallExpr)
	return ok && plainExprs([]ast.Expr{e})
}

// plainExprs refuses function literals and operators on two values: both are
// where logic hides in an argument.
func plainExprs(list []ast.Expr) bool {
	ok := true
	for _, e := range list {
		ast.Inspect(e, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.FuncLit, *ast.BinaryExpr:
				ok = false
			}
			return ok
		})
	}
	return ok
}

// isName reports whether the expression is an identifier, qualified or not.
func isName(e ast.Expr) bool {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		e = sel.X
	}
	_, ok := e.(*ast.Ident)
	return ok
}

var importSpec = regexp.MustCompile(`^(\w+ )?"[^"\s]+"$`)

// checkImports refuses import specs that are not written as gofmt writes them.
func checkImports(h *Hook) error {
	for _, spec := range h.Imports {
		if !importSpec.MatchString(spec) {
			return h.errorf(`import %s: want "path" or name "path"`, spec)
		}
	}
	return nil
}

// checkGlue refuses glue that would not join upstream's package. Upstream has
// only internal tests, and so has the glue.
func checkGlue(name string, text []byte) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.PackageClauseOnly)
	if err != nil {
		return err
	}
	if file.Name.Name != "server" {
		return fmt.Errorf("%s: package %q: glue is part of upstream's package server", name, file.Name.Name)
	}
	return nil
}
