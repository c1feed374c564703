// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"path/filepath"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// TestIdleFleetsWithoutSystemd: those that have a file are known, also where systemd
// does not answer.
func TestIdleFleetsWithoutSystemd(t *testing.T) {
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	found := []fleetfile.Found{{Name: "edge", Path: "/etc/prefork/edge.toml"}}
	if idle := idleFleets(found, nil, nil); len(idle) != 1 || idle[0].Name != "edge" || idle[0].ActiveState != inactive {
		t.Errorf("got %+v", idle)
	}
}
