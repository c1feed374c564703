// SPDX-License-Identifier: AGPL-3.0-or-later

package policy

import "slices"

// Circle returns workers that wait for each other: each is after the next one, and the
// last after the first. It returns nil if there are none. after tells which a worker is
// after; names that are not among names are after nothing.
func Circle(names []string, after func(name string) []string) []string {
	over := map[string]bool{} // no circle goes through it
	var way []string
	var visit func(name string) []string
	visit = func(name string) []string {
		if over[name] || !slices.Contains(names, name) {
			return nil
		}
		if i := slices.Index(way, name); i >= 0 {
			return slices.Clone(way[i:])
		}
		way = append(way, name)
		for _, next := range after(name) {
			if circle := visit(next); circle != nil {
				return circle
			}
		}
		way = way[:len(way)-1]
		over[name] = true
		return nil
	}
	for _, name := range names {
		if circle := visit(name); circle != nil {
			return circle
		}
	}
	return nil
}
