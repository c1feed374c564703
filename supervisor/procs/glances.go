// SPDX-License-Identifier: AGPL-3.0-or-later

package procs

import (
	"os"
	"time"
)

// glances are files of /proc that are being read on threads of their own. What is in
// the memory of a process takes as long to be read as that process likes: it may be
// of a file that it serves itself (FUSE).
type glances chan struct{}

const (
	maxGlances    = 8
	sweepPatience = 500 * time.Millisecond // longer than many processes that are well take
)

func newGlances() glances { return make(glances, maxGlances) }

// read waits no longer than that, and not at all while too many are stuck; it returns
// nothing then. A process that is not looked into is found at the fleet's end.
func (g glances) read(path string, patience time.Duration) []byte {
	select {
	case g <- struct{}{}:
	default:
		return nil
	}
	read := make(chan []byte, 1)
	go func() {
		text, _ := os.ReadFile(path) // it has ended, or is another user's
		<-g
		read <- text
	}()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case text := <-read:
		return text
	case <-late.C:
		return nil
	}
}
