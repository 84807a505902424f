package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"nats-trusted-proxy/scripts/devcert/certs"
	"nats-trusted-proxy/server/accept"
	"nats-trusted-proxy/server/listener"
	"nats-trusted-proxy/server/proxyheader"
	"nats-trusted-proxy/server/revision"
)

// These tests hold the documentation to what the code does.

func readDoc(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(path)))
	require_NoError(t, err)
	return string(b)
}

// section returns what stands under a heading, to the next one of its level or above.
func section(t testing.TB, doc, heading string) string {
	t.Helper()
	level, _, _ := strings.Cut(heading, " ")
	var out []string
	in, fenced := false, false
	for _, line := range strings.Split(doc, "\n") {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if marks, _, ok := strings.Cut(line, " "); ok && !fenced && marks != "" && strings.Trim(marks, "#") == "" {
			switch {
			case line == heading:
				in = true
				continue
			case in && len(marks) <= len(level):
				return strings.Join(out, "\n")
			}
		}
		if in {
			out = append(out, line)
		}
	}
	if !in {
		t.Fatalf("no heading %q", heading)
	}
	return strings.Join(out, "\n")
}

// table returns the rows of the one table in a text, its header row first.
func table(t testing.TB, text string) [][]string {
	t.Helper()
	var rows [][]string
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		if strings.Trim(strings.Join(cells, ""), "-") != "" {
			rows = append(rows, cells)
		}
	}
	if len(rows) < 2 {
		t.Fatalf("no table in:\n%s", text)
	}
	for _, row := range rows {
		if len(row) != len(rows[0]) {
			t.Fatalf("row of %d cells in a table of %d: %q", len(row), len(rows[0]), row)
		}
	}
	return rows
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// codes returns what stands in code marks.
func codes(s string) (out []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(s, -1) {
		out = append(out, m[1])
	}
	return out
}

func code(v any) string { return fmt.Sprintf("`%v`", v) }

// requireSame compares two sets and names what only one has.
func requireSame(t testing.TB, what string, got, want []string) {
	t.Helper()
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("%s: %q is documented and does not exist", what, g)
		}
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s != g })); n > 1 {
			t.Errorf("%s: %q is documented %d times", what, g, n)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("%s: %q exists and is not documented", what, w)
		}
	}
}

// parserFunc returns a function of server/listener/parse.go.
func parserFunc(t testing.TB, name string) *ast.FuncDecl {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), filepath.FromSlash("../server/listener/parse.go"), nil, 0)
	require_NoError(t, err)
	for _, d := range f.Decls {
		if fd, ok := d.(*ast.FuncDecl); ok && fd.Name.Name == name {
			return fd
		}
	}
	t.Fatalf("no func %s in parse.go: name the one that reads the options", name)
	return nil
}

func stringLit(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// parsedOptions returns the keys that the switch over keys in a function of the
// parser takes, aliases among them.
func parsedOptions(t testing.TB, name string) []string {
	t.Helper()
	var keys []string
	ast.Inspect(parserFunc(t, name), func(n ast.Node) bool {
		sw, ok := n.(*ast.SwitchStmt)
		if !ok {
			return true
		}
		if tag, ok := sw.Tag.(*ast.Ident); !ok || tag.Name != "k" {
			return true
		}
		for _, c := range sw.Body.List {
			for _, e := range c.(*ast.CaseClause).List {
				s, ok := stringLit(e)
				if !ok {
					t.Fatalf("%s: a case of the switch over keys is no string", name)
				}
				keys = append(keys, s)
			}
		}
		return true
	})
	if len(keys) == 0 {
		t.Fatalf("no switch over k in %s", name)
	}
	// option() gives other names to some of them: if key == "net" return "host".
	ast.Inspect(parserFunc(t, "option"), func(n ast.Node) bool {
		i, ok := n.(*ast.IfStmt)
		if !ok {
			return true
		}
		cond, isCond := i.Cond.(*ast.BinaryExpr)
		ret, isRet := i.Body.List[0].(*ast.ReturnStmt)
		if !isCond || !isRet || cond.Op != token.EQL {
			t.Fatal("func option has changed: teach this test to read its aliases")
		}
		alias, ok1 := stringLit(cond.Y)
		of, ok2 := stringLit(ret.Results[0])
		if !ok1 || !ok2 {
			t.Fatal("func option has changed: teach this test to read its aliases")
		}
		if slices.Contains(keys, of) {
			keys = append(keys, alias)
		}
		return true
	})
	return keys
}

// parseOne parses a configuration of one listener.
func parseOne(t testing.TB, options map[string]any) *listener.Options {
	t.Helper()
	ls, errs := listener.Parse(map[string]any{"x": options}, func(string, any) error { return nil })
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return &ls[0].Options
}

// refusal returns the errors of a configuration of one listener, in one text.
func refusal(options map[string]any) string {
	_, errs := listener.Parse(map[string]any{"x": options}, func(string, any) error { return nil })
	return fmt.Sprint(errs)
}

const (
	listenerHeading = "## Options of a listener"
	proxyHeading    = "## Options of proxy_protocol"
)

func TestListenerDocsOptions(t *testing.T) {
	doc := readDoc(t, "conf/README.md")
	for heading, name := range map[string]string{listenerHeading: "listener", proxyHeading: "proxyProtocol"} {
		rows := table(t, section(t, doc, heading))
		require_Equal(t, strings.Join(rows[0], " "), "option type default reload meaning")
		var documented []string
		for _, row := range rows[1:] {
			documented = append(documented, codes(row[0])...)
			if row[3] != "yes" && row[3] != "no" {
				t.Errorf("%s: reload is %q, want yes or no", row[0], row[3])
			}
			if row[1] == "" || row[4] == "" {
				t.Errorf("%s: no type, or no meaning", row[0])
			}
		}
		requireSame(t, heading, documented, parsedOptions(t, name))
	}
}

func TestListenerDocsDefaults(t *testing.T) {
	pp := map[string]any{"trusted": []any{"192.0.2.1"}}
	plain := parseOne(t, map[string]any{"port": int64(4221)})
	trusted := parseOne(t, map[string]any{"port": int64(4221), "proxy_protocol": pp})
	trustedTLS := parseOne(t, map[string]any{"port": int64(4221), "proxy_protocol": pp, "tls": map[string]any{}})
	advertised := parseOne(t, map[string]any{"port": int64(4221), "proxy_protocol": pp, "advertise": "a.example.com:1"})

	// What the words in the cells below mean.
	require_Contains(t, refusal(map[string]any{"host": "127.0.0.1"}), "listen, or host and port, is required")
	require_Contains(t, refusal(map[string]any{"port": int64(4221), "proxy_protocol": map[string]any{}}), "proxy_protocol requires trusted")
	parseOne(t, map[string]any{"listen": "unix:/run/x", "proxy_protocol": map[string]any{}})
	require_Contains(t, refusal(map[string]any{"port": int64(4221),
		"proxy_protocol": map[string]any{"trusted": []any{"192.0.2.1"}, "header": "other"}}), `header must be "first"`)
	if plain.TLS || plain.ProxyProtocol != nil || plain.Advertise != nil {
		t.Fatalf("options that nobody wrote: %+v", plain)
	}
	require_Equal(t, trustedTLS.AdvertiseTLS, plain.AdvertiseTLS)
	require_Equal(t, advertised.NoAdvertise, plain.NoAdvertise)
	crc := map[proxyheader.CRCPolicy]string{proxyheader.CRCVerify: "verify", proxyheader.CRCRequire: "require"}

	doc := readDoc(t, "conf/README.md")
	for heading, want := range map[string]map[string]string{
		listenerHeading: {
			"listen":         "required, or `port`",
			"host":           code(plain.Host),
			"port":           "required, or `listen`",
			"socket_mode":    code(fmt.Sprintf("%q", fmt.Sprintf("%04o", plain.SocketMode))),
			"tls":            "none",
			"allow_non_tls":  code(plain.AllowNonTLS),
			"proxy_protocol": "none",
			"advertise_tls":  code(plain.AdvertiseTLS) + "; " + code(trusted.AdvertiseTLS) + " with `proxy_protocol` and no `tls`",
			"advertise":      "none",
			"no_advertise":   code(plain.NoAdvertise) + "; " + code(trusted.NoAdvertise) + " with `proxy_protocol` and no `advertise`",
			"max_handshakes": code(plain.MaxHandshakes),
		},
		proxyHeading: {
			"trusted":        "required; none on a Unix socket",
			"header":         code("first"),
			"header_timeout": code(trusted.ProxyProtocol.HeaderTimeout),
			"max_header":     code(trusted.ProxyProtocol.Limits.MaxHeader),
			"crc32c":         code(crc[trusted.ProxyProtocol.Limits.CRC32C]),
		},
	} {
		for _, row := range table(t, section(t, doc, heading))[1:] {
			option := codes(row[0])[0]
			w, ok := want[option]
			if !ok {
				t.Errorf("%s: this test does not know the default of %s", heading, option)
			} else if row[2] != w {
				t.Errorf("%s: the default of %s is documented as %s, and is %s", heading, option, row[2], w)
			}
			delete(want, option)
		}
		if len(want) > 0 {
			t.Errorf("%s: no row for %q", heading, slices.Sorted(maps.Keys(want)))
		}
	}
}

// The table of advertise_tls says what the policy says.
func TestListenerDocsAdvertiseTLS(t *testing.T) {
	says := func(available, required bool) string {
		switch {
		case available && !required:
			return code("tls_available")
		case required && !available:
			return code("tls_required")
		case !available && !required:
			return "nothing"
		}
		return "both"
	}
	rows := table(t, section(t, readDoc(t, "conf/README.md"), "## What INFO says of TLS"))
	require_Equal(t, strings.Join(rows[0], " "), "`advertise_tls` proved not proved")
	var documented, policies []string
	for a := listener.AdvertiseNever; a <= listener.AdvertiseRequired; a++ {
		policies = append(policies, a.String())
		for _, row := range rows[1:] {
			if row[0] != code(a) {
				continue
			}
			documented = append(documented, a.String())
			require_Equal(t, row[1], says(a.Fields(true)))
			require_Equal(t, row[2], says(a.Fields(false)))
		}
	}
	require_Equal(t, len(rows)-1, len(policies))
	requireSame(t, "advertise_tls", documented, policies)
}

func TestListenerDocsReasons(t *testing.T) {
	want := []string{string(accept.ReasonUntrusted), string(accept.ReasonMaxHandshakes), "error"}
	for _, r := range proxyheader.Reasons() {
		want = append(want, string(r))
	}
	var documented []string
	for _, row := range table(t, section(t, readDoc(t, "conf/README.md"), "## Why a connection is refused"))[1:] {
		documented = append(documented, codes(row[0])...)
	}
	requireSame(t, "reasons", documented, want)
}

// Each message that is documented is one that a configuration gets.
func TestListenerDocsMessages(t *testing.T) {
	var said strings.Builder
	for _, conf := range []string{
		`listeners {
			a { host: "127.0.0.1" }
			b { listen: "127.0.0.1:4000", host: "127.0.0.1" }
			other { listen: "0.0.0.0:4221" }
			p { listen: "127.0.0.1:4221", proxy_protocol {} }
			c { port: -1, proxy_protocol { trusted: [] } }
			d { port: -1, proxy_protocol { trusted: ["10.0.0.1/24", "edge.example.com"] } }
			e { port: -1, proxy_protocol: true }
			f { port: -1, advertise_tls: never, tls {} }
			g { port: -1, advertise_tls: auto }
			h { port: -1, advertise: ["a:1"], no_advertise: true }
			i { port: -1, allow_non_tls: true }
			j { port: -1, socket_mode: "0600" }
			k { port: -1, foo: 1 }
		}`,
		"listen: 127.0.0.1:4222\nlisteners { a { listen: 127.0.0.1:4222 } }",
	} {
		_, err := server.ProcessConfigFile(createConfFile(t, conf))
		if err == nil {
			t.Fatal("a bad configuration was taken")
		}
		said.WriteString(err.Error())
	}
	for _, row := range table(t, section(t, readDoc(t, "conf/README.md"), "## What is refused in a configuration"))[1:] {
		for _, message := range codes(row[1]) {
			if !strings.Contains(said.String(), "\": "+message+"\n") {
				t.Errorf("%s: nothing says %q in\n%s", row[0], message, &said)
			}
		}
	}
}

// fence is a block of code in a document, at a line.
var fence = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")

var certFile = regexp.MustCompile(`\b(cert_file|key_file|ca_file): "[^"]*"`)

// Every configuration that a person may paste is one that the server takes.
func TestListenerDocsConfigurations(t *testing.T) {
	dir := testCerts(t, certs.Opts{})
	files := map[string]string{"cert_file": certs.Server, "key_file": certs.ServerKey, "ca_file": certs.CA}
	for _, path := range []string{"README.md", "conf/README.md"} {
		n := 0
		doc := readDoc(t, path)
		for _, at := range fence.FindAllStringSubmatchIndex(doc, -1) {
			if doc[at[2]:at[3]] != "nats" {
				continue
			}
			n++
			line := 1 + strings.Count(doc[:at[0]], "\n")
			conf := certFile.ReplaceAllStringFunc(doc[at[4]:at[5]], func(s string) string {
				option, _, _ := strings.Cut(s, ":")
				return fmt.Sprintf("%s: %q", option, filepath.ToSlash(filepath.Join(dir, files[option])))
			})
			if _, err := server.ProcessConfigFile(createConfFile(t, conf)); err != nil {
				t.Errorf("%s:%d: %v", path, line, err)
			}
		}
		if n == 0 {
			t.Errorf("%s: no configuration to paste", path)
		}
	}
}

// The folders under conf/ are listed, and nothing else is.
func TestListenerDocsScenarios(t *testing.T) {
	found, err := filepath.Glob("../conf/*/nats-server.conf")
	require_NoError(t, err)
	var want []string
	for _, f := range found {
		want = append(want, filepath.Base(filepath.Dir(f)))
	}
	list := section(t, readDoc(t, "conf/README.md"), "## Scenarios")
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^- \[([\w-]+)\]\(([\w-]+)\)`).FindAllStringSubmatch(list, -1) {
		require_Equal(t, m[1], m[2])
		documented = append(documented, m[1])
	}
	requireSame(t, "scenarios", documented, want)
}

func TestListenerDocsRelease(t *testing.T) {
	m := regexp.MustCompile(`(?m)^## (.*)$`).FindStringSubmatch(readDoc(t, "CHANGES.md"))
	if m == nil || m[1] != revision.Release {
		t.Errorf("the first section of CHANGES.md is %q, want %q", m, revision.Release)
	}
	require_Contains(t, section(t, readDoc(t, "CHANGES.md"), "## "+revision.Release), revision.Upstream)
	// Upstream's versions, all of those that the hooks must apply to.
	out, err := exec.Command("../scripts/upstreams").Output()
	require_NoError(t, err)
	versions := strings.Fields(string(out))
	require_Equal(t, versions[0], revision.Upstream)
	require_Contains(t, readDoc(t, "README.md"), versions...)
}

func TestListenerDocsHooks(t *testing.T) {
	files, err := filepath.Glob("../server/_upstream/hooks/*.hooks")
	require_NoError(t, err)
	var want []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		require_NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^hook (\S+)$`).FindAllSubmatch(b, -1) {
			want = append(want, string(m[1]))
		}
	}
	if len(want) == 0 {
		t.Fatal("no hooks")
	}
	var listed []string
	for _, m := range regexp.MustCompile("(?m)^- `([a-z-]+)`$").FindAllStringSubmatch(
		section(t, readDoc(t, "CHANGES.md"), "## "+revision.Release), -1) {
		listed = append(listed, m[1])
	}
	requireSame(t, "hooks in CHANGES.md", listed, want)

	var explained []string
	for _, row := range table(t, section(t, readDoc(t, "docs/how-it-works.md"), "## What each hook does"))[1:] {
		explained = append(explained, codes(row[0])...)
	}
	requireSame(t, "hooks in docs/how-it-works.md", explained, want)
}

// Whatever is linked into the server, on any platform, is in NOTICE.
func TestListenerDocsNotice(t *testing.T) {
	notice := readDoc(t, "NOTICE")
	for _, goos := range []string{"linux", "darwin", "freebsd", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "nats-trusted-proxy")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
		out, err := cmd.Output()
		require_NoError(t, err)
		modules := strings.Fields(string(out))
		slices.Sort(modules)
		for _, m := range slices.Compact(modules) {
			if !strings.Contains(notice, m) {
				t.Errorf("NOTICE does not name %s, which is linked on %s", m, goos)
			}
		}
	}
}

var (
	mdLink    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	mdHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the names that the headings of a document have in links.
func anchors(doc string) (out []string) {
	for _, m := range mdHeading.FindAllStringSubmatch(fence.ReplaceAllString(doc, ""), -1) {
		out = append(out, strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// No link inside the repository leads nowhere.
func TestListenerDocsLinks(t *testing.T) {
	documents := 0
	require_NoError(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (path == "../build" || name != ".." && strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		documents++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range mdLink.FindAllStringSubmatch(fence.ReplaceAllString(string(b), ""), -1) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: link %q: %v", path, m[1], err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			target := path
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(u.Path))
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link %q leads nowhere", path, m[1])
				continue
			}
			if u.Fragment == "" {
				continue
			}
			to, err := os.ReadFile(target)
			if err != nil || !slices.Contains(anchors(string(to)), u.Fragment) {
				t.Errorf("%s: link %q: no such heading", path, m[1])
			}
		}
		return nil
	}))
	if documents < 5 {
		t.Fatalf("%d documents: the test looks in the wrong place", documents)
	}
}
