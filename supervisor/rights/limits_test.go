// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

func limited(t *testing.T, keys string) *fleetfile.File {
	t.Helper()
	file, err := fleetfile.Parse("f", "/etc/prefork/f.toml", []byte("[worker.w]\nexec = [\"true\"]\n"+keys), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestControllersOfLimits(t *testing.T) {
	for _, c := range []struct{ keys, available, want, fault string }{
		{"", "cpu io memory pids", "memory pids", ""},
		{"", "", "", ""},
		{"cpu_weight = 50\n", "cpu memory", "memory cpu", ""},
		{"cpu_weight = 50\nmemory_max = \"1G\"\n", "memory pids", "", "worker.w: memory_max, cpu_weight need the cpu controller, which this unit does not have (it has: memory pids): add it to Delegate="},
		{"tasks_max = 5\n", "", "", "need the pids controller, which this unit does not have (it has: none)"},
	} {
		got, err := Controllers(limited(t, c.keys), strings.Fields(c.available))
		var forbidden *Forbidden
		switch {
		case c.fault == "" && (err != nil || !slices.Equal(got, strings.Fields(c.want))):
			t.Errorf("%q of %q: got %q and %v, want %q", c.keys, c.available, got, err, c.want)
		case c.fault != "" && (!errors.As(err, &forbidden) || !strings.Contains(err.Error(), c.fault) || !strings.HasPrefix(err.Error(), "/etc/prefork/f.toml: ")):
			t.Errorf("%q of %q: got %v, want %q", c.keys, c.available, err, c.fault)
		}
	}
}

func TestLimitsWithoutGroupsAreRefused(t *testing.T) {
	why := errors.New("it is a test")
	if err := WithoutGroups(limited(t, ""), why); err != nil {
		t.Error(err)
	}
	err := WithoutGroups(limited(t, "memory_max = \"1G\"\n"), why)
	var forbidden *Forbidden
	if want := "/etc/prefork/f.toml: worker.w.memory_max: needs control groups, and there are none (it is a test): run the fleet as prefork@f.service"; !errors.As(err, &forbidden) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestAmbient(t *testing.T) {
	w := &fleetfile.Worker{AmbientCapabilities: []string{"CAP_NET_RAW", "CAP_CHOWN", "CAP_NET_ADMIN"}}
	if got := Ambient(w); !slices.Equal(got, []int{0, 12, 13}) { // capabilities(7), linux/capability.h
		t.Errorf("got %v", got)
	}
}
