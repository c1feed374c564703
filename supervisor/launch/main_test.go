// SPDX-License-Identifier: AGPL-3.0-or-later

package launch

import (
	"os"
	"runtime"
	"testing"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
)

func init() { runtime.LockOSThread() } // the death signal belongs to the thread that was the parent

// The test binary is also the shim, and adopts what its floors fork.
func TestMain(m *testing.M) {
	if os.Args[0] == gate.ShimName {
		gate.RunShim()
	}
	if err := linux.SetChildSubreaper(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
