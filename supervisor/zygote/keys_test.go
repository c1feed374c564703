// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"regexp"
	"slices"
	"testing"

	"github.com/decnet/prefork/supervisor/gate"
)

// A worker reads every key of its orders, and none that is not sent.
func TestAWorkerReadsItsKeys(t *testing.T) {
	var read []string
	reads := regexp.MustCompile(`(?:one\(orders, |orders\.get\(|\([12], )"(\w+)"|"(\w+)" in orders`)
	for _, m := range reads.FindAllStringSubmatch(string(Source()), -1) {
		if key := m[1] + m[2]; key != "memfd" && !slices.Contains(read, key) { // that is where long orders are
			read = append(read, key)
		}
	}
	want := gate.WorkerKeys()
	slices.Sort(read)
	slices.Sort(want)
	if !slices.Equal(read, want) {
		t.Errorf("a worker reads\n%q, package gate sends\n%q", read, want)
	}
}
