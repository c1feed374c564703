// SPDX-License-Identifier: AGPL-3.0-or-later

package display

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// Table aligns columns.
func Table(rows [][]string) []string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t")) // into memory
	}
	_ = w.Flush() // the same
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}
