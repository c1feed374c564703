// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"testing"

	"github.com/godbus/dbus/v5"
)

// TestWhatAUnitSaysWhileItIsWaitedFor: what is news is told, a countdown is not, and what was
// said last comes with the result.
func TestWhatAUnitSaysWhileItIsWaitedFor(t *testing.T) {
	done, said := make(chan string, 1), make(chan *dbus.Signal)
	says := func(text string) {
		said <- &dbus.Signal{Body: []any{"org.freedesktop.systemd1.Service", map[string]dbus.Variant{"StatusText": dbus.MakeVariant(text)}}}
	}
	var told []string
	heard := make(chan bool, 1)
	go func() {
		says("0/1 ready; w.0 restarts in 1min 2.5s (1st)")
		<-heard
		says("0/1 ready; w.0 restarts in 900ms (1st)")
		says("0/1 ready; w.0 restarts in 4s (2nd)")
		<-heard
		says("failed: a\x1b[31m reason")
		done <- "failed"
	}()
	result, last := until(done, said, func(text string) {
		told = append(told, text)
		heard <- true
	})
	if result != "failed" || last != "failed: a [31m reason" {
		t.Errorf("got %q and %q", result, last)
	}
	if len(told) != 2 || told[0] != "0/1 ready; w.0 restarts in 1min 2.5s (1st)" || told[1] != "0/1 ready; w.0 restarts in 4s (2nd)" {
		t.Errorf("told %q", told)
	}
}
