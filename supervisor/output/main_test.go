// SPDX-License-Identifier: AGPL-3.0-or-later

package output

import (
	"slices"
	"sync"
	"testing"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestMain(m *testing.M) {
	testutil.Main(m, map[string]func(){"log": logChild, "flood": floodChild})
}

// lines collects what a Log writes.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) write(line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, string(line))
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.text)
}

// newTestLog returns a log that is kept, without a terminal.
func newTestLog() (*Log, *lines) {
	l := &lines{}
	return LogTo(l.write), l
}
