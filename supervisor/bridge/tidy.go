// SPDX-License-Identifier: AGPL-3.0-or-later

package bridge

import (
	"math"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/decnet/prefork/supervisor/internal/linux"
)

// tidier gives memory back that the runtime would keep for a long time: what the start of
// the fleet, a slot that is replaced, or a look has needed, and the tables that a
// collection reads. Its methods are for all goroutines and do not block, except tidy,
// which has its own.
type tidier struct {
	littered atomic.Bool // there is something to collect

	due struct {
		sync.Mutex
		timer *time.Timer
		at    time.Time // when it fires; zero: it does not run
	}

	tidying struct {
		sync.Mutex
		find      sync.Once
		program   linux.Program
		collected runtime.Cleanup // at the next collection
	}
}

// What was needed may be needed again before long.
const (
	afterALook   = 2 * time.Second
	afterAChange = 30 * time.Second // one change often follows another, and is to be quick
)

func newTidier() *tidier {
	t := &tidier{}
	t.due.timer = time.AfterFunc(math.MaxInt64, t.tidy)
	return t
}

// within gives back, before that time is over, what something has needed. What goes on
// for long is tidied meanwhile, too.
func (t *tidier) within(d time.Duration) {
	t.littered.Store(true)
	t.start(d)
}

func (t *tidier) start(d time.Duration) {
	t.due.Lock()
	defer t.due.Unlock()
	if at := time.Now().Add(d); t.due.at.IsZero() || at.Before(t.due.at) {
		t.due.at = at
		t.due.timer.Reset(d)
	}
}

func (t *tidier) stop() { t.due.timer.Stop() }

// tidy collects if there is a reason, which takes a millisecond or two of a processor and
// hardly stops anybody. The runtime itself collects every two minutes where nothing
// happens, and reads its tables again: then it is enough to let go of those.
func (t *tidier) tidy() {
	t.due.Lock()
	t.due.at = time.Time{}
	t.due.Unlock()
	t.tidying.Lock()
	defer t.tidying.Unlock()
	t.tidying.find.Do(func() { t.tidying.program, _ = linux.FindProgram() }) // an error: it is kept
	t.tidying.collected.Stop()                                               // what is collected here is no reason to come again
	if t.littered.Swap(false) {
		debug.FreeOSMemory()
	}
	_ = t.tidying.program.Release() // it only gives memory back
	t.tidying.collected = runtime.AddCleanup(new([64]byte), func(t *tidier) { t.start(afterALook) }, t)
}
