package hooks

import (
	"fmt"
	"strings"
)

// context is how many unchanged lines a diff shows around the inserted ones.
const context = 3

// Diff returns the file's insertions as a unified diff against upstream.
func (f *File) Diff() string {
	var b strings.Builder
	fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n", f.Path, f.Path)
	oldLine := 1 // upstream's number of the line at from
	for from := 0; from < len(f.lines); {
		next := from
		for next < len(f.lines) && !f.lines[next].inserted {
			next++
		}
		if next == len(f.lines) {
			break
		}
		start := max(from, next-context)
		oldLine += start - from
		end := f.hunkEnd(next)
		inserted := 0
		var body strings.Builder
		for _, l := range f.lines[start:end] {
			if l.text == "" {
				continue // what follows the last newline is no line
			}
			mark := " "
			if l.inserted {
				mark = "+"
				inserted++
			}
			body.WriteString(mark + l.text)
		}
		newLines := strings.Count(body.String(), "\n")
		fmt.Fprintf(&b, "@@ -%d,%d +%d,%d @@\n%s", oldLine, newLines-inserted, start+1, newLines, &body)
		oldLine += end - start - inserted
		from = end
	}
	return b.String()
}

// hunkEnd returns the end of the hunk whose first inserted line is given: where
// no further insertion is near enough to share context.
func (f *File) hunkEnd(first int) int {
	last := first
	for i := first; i < len(f.lines) && i <= last+2*context+1; i++ {
		if f.lines[i].inserted {
			last = i
		}
	}
	return min(last+context+1, len(f.lines))
}
