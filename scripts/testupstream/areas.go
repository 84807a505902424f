package main

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// area is a part of upstream's tests. A test belongs to the first area of the
// table that matches it, so each belongs to exactly one; the last one takes
// whatever a new upstream version adds.
type area struct {
	name  string
	about string
	// hooks says that the hooks touch what is tested: run by default.
	hooks bool
	// match is a regular expression on package, file and name of a test, as in
	// "server/reload_test.go:TestConfigReload".
	match string
	// timeout bounds one run of the area.
	timeout time.Duration
}

// assign gives each test to its area, by name of the area.
func assign(table []area, tests []testID) map[string][]testID {
	exprs := make([]*regexp.Regexp, len(table))
	for i, a := range table {
		exprs[i] = regexp.MustCompile("^(?:" + a.match + ")")
	}
	byArea := map[string][]testID{}
	for _, t := range tests {
		for i, a := range table {
			if exprs[i].MatchString(t.String()) {
				byArea[a.name] = append(byArea[a.name], t)
				break
			}
		}
	}
	return byArea
}

// testFunc matches what `go test` takes for a test: the name, not the file,
// decides, and TestMain has another parameter.
var testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)(?:[^a-z(][^(]*)?|Example[^(]*)\((?:\w+ \*testing\.[TF])?\)`)

// scanTests lists the tests of a module by its sources, in their order. Files
// that this platform does not build are left out.
func scanTests(dir string) ([]testID, error) {
	var tests []testID
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		if ok, err := build.Default.MatchFile(filepath.Dir(path), d.Name()); err != nil || !ok {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(dir, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			tests = append(tests, testID{filepath.ToSlash(pkg), d.Name(), string(m[1])})
		}
		return nil
	})
	return tests, err
}
