package hooks

import (
	"go/version"
	"regexp"
	"strings"
)

var upstreamVersion = regexp.MustCompile(`^v\d+\.\d+\.\d+(-.+)?$`)

func validVersion(v string) bool { return upstreamVersion.MatchString(v) }

// compareVersions orders two upstream versions. A pre-release counts as its
// release: it already has the code that a since or until is about. The numbers
// have the form that Go gives its own releases, which saves a dependency: the
// tool must run before anything is downloaded.
func compareVersions(a, b string) int {
	goForm := func(v string) string {
		v, _, _ = strings.Cut(strings.TrimPrefix(v, "v"), "-")
		return "go" + v
	}
	return version.Compare(goForm(a), goForm(b))
}
