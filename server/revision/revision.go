// Package revision names the release of this distribution. It is the one place
// that does: the binary, the tests and the packaging read it from here.
package revision

import "strings"

const (
	// Upstream is the version of nats-server that this distribution patches, as
	// go.mod has it (a test holds the two together).
	Upstream = "v2.15.2"

	// Number counts the releases made on one upstream version, from 1.
	Number = "1"

	// Release is the name of the release: upstream's version and our number.
	Release = Upstream + "-" + Number
)

// Version returns what `nats-server -v` prints. It starts as upstream's line
// does, so that whoever parses that goes on working; base is upstream's own
// VERSION, which is left as it is, because clients and servers compare it.
func Version(base string) string {
	return "nats-server: v" + strings.TrimPrefix(base, "v") + " (trusted-proxy " + Release + ")"
}
