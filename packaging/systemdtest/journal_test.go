// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest_test

import "encoding/json"

// fieldOf returns a field of an entry in journalctl's JSON: a text, a list of
// numbers if it is not printable, or a list of texts if it is there more than
// once.
func fieldOf(line, field string) string {
	var entry map[string]any
	if json.Unmarshal([]byte(line), &entry) != nil {
		return ""
	}
	switch v := entry[field].(type) {
	case string:
		return v
	case []any:
		if len(v) > 0 {
			s, _ := v[0].(string)
			return s
		}
	}
	return ""
}
