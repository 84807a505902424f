package revision

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Upstream is the version that go.mod requires.
func TestRevisionUpstreamIsThatOfGoMod(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^\s*(?:require\s+)?github\.com/nats-io/nats-server/v2\s+(\S+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatal("go.mod requires no nats-server")
	}
	if got := string(m[1]); got != Upstream {
		t.Errorf("Upstream is %s, go.mod requires %s", Upstream, got)
	}
}

func TestRevisionVersion(t *testing.T) {
	base := strings.TrimPrefix(Upstream, "v")
	got := Version(base)
	if upstream := "nats-server: v" + base; !strings.HasPrefix(got, upstream+" ") {
		t.Errorf("%q does not start as upstream's %q", got, upstream)
	}
	if !strings.Contains(got, Release) || strings.ContainsAny(got, "\r\n") {
		t.Errorf("%q is not one line with %s in it", got, Release)
	}
	if Version(Upstream) != got {
		t.Errorf("with and without v: %q, %q", Version(Upstream), got)
	}
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.]+)?-[1-9]\d*$`).MatchString(Release) {
		t.Errorf("release %q is not <upstream>-<revision>", Release)
	}
}
