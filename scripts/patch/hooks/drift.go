package hooks

import (
	"fmt"
	"io/fs"
	"strings"
)

// Change says what became of a hook's declaration between two versions.
type Change string

// The values of Change. New is a declaration that only the newer version has.
const (
	Same    Change = "same"
	Changed Change = "changed"
	Gone    Change = "gone"
	New     Change = "new"
)

// Drift is what an upgrade means to one hook.
type Drift struct {
	Hook   *Hook
	Change Change
	// Diff lists the changed lines of the declaration, comments apart.
	Diff string
	// Err says why the hook does not apply to the newer version; nil if it does.
	Err error
}

// Drift compares the declarations that hooks touch. A hook can still match
// while the code around it now means something else, so a changed declaration
// is to be read even if every anchor holds.
func (s *Set) Drift(older, newer fs.FS, newVersion string) []Drift {
	var out []Drift
	for i := range s.Hooks {
		h := &s.Hooks[i]
		if !h.appliesTo(newVersion) {
			continue
		}
		d := Drift{Hook: h, Change: Changed}
		was, is := declText(older, h), declText(newer, h)
		switch {
		case is == "":
			d.Change = Gone
		case was == "":
			d.Change = New
		case was == is:
			d.Change = Same
		default:
			d.Diff = lineDiff(strings.Split(was, "\n"), strings.Split(is, "\n"))
		}
		_, d.Err = patchFile(newer, newVersion, h.File, []*Hook{h})
		out = append(out, d)
	}
	return out
}

// declText prints the hook's declaration without comments and with the
// printer's own line breaks, or returns "" if there is none.
func declText(upstream fs.FS, h *Hook) string {
	src, err := readSource(upstream, "", h.File, 0)
	if err != nil {
		return ""
	}
	decl := findDecl(src.ast, h.Decl)
	if decl == nil {
		return ""
	}
	return printLines(decl)
}

// lineDiff lists the lines that only one side has, in order, each run of them
// under the line that comes before it.
func lineDiff(a, b []string) string {
	// common[i][j] is the length of the longest common subsequence of a[i:] and
	// b[j:]. A declaration has at most some hundred lines.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	shared, shown := "", true
	write := func(mark, text string) {
		if !shown {
			fmt.Fprintf(&out, "  %s\n", shared)
			shown = true
		}
		fmt.Fprintf(&out, "%s %s\n", mark, text)
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			shared, shown = a[i], false
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			write("-", a[i])
			i++
		default:
			write("+", b[j])
			j++
		}
	}
	return out.String()
}
