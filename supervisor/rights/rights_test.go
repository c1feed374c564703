// SPDX-License-Identifier: AGPL-3.0-or-later

package rights

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/internal/envfile"
)

func TestRightsAreChecked(t *testing.T) {
	low, high := -5, 10
	for name, c := range map[string]struct {
		worker fleetfile.Worker
		rights mayDo
		want   string // a part of the message; none if it is allowed
	}{
		"user":              {fleetfile.Worker{User: "www-data"}, mayDo{}, "worker.w.user: this master is not permitted to change users"},
		"user allowed":      {fleetfile.Worker{User: "www-data"}, mayDo{users: true, give: true}, ""},
		"notify socket":     {fleetfile.Worker{User: "www-data"}, mayDo{users: true}, "worker.w.user: this master is not permitted to give a notify socket"},
		"no notify socket":  {fleetfile.Worker{User: "www-data", NotifyAccess: fleetfile.NotifyNone}, mayDo{users: true}, ""},
		"group":             {fleetfile.Worker{Group: "www-data"}, mayDo{}, "worker.w.group: "},
		"nice":              {fleetfile.Worker{Nice: &low}, mayDo{nice: 0}, "worker.w.nice: this master is not permitted to set nice -5"},
		"nice just allowed": {fleetfile.Worker{Nice: &low}, mayDo{nice: -5}, ""},
		"nice upwards":      {fleetfile.Worker{Nice: &high}, mayDo{nice: 0}, ""},
		"nice filtered":     {fleetfile.Worker{Nice: &high}, mayDo{nice: 20}, "prefork@f.service.d /usr/share/prefork/priorities.conf"},
		"oom_score_adjust":  {fleetfile.Worker{OOMScoreAdjust: &low}, mayDo{}, "worker.w.oom_score_adjust: "},
		"capability": {
			fleetfile.Worker{AmbientCapabilities: []string{"CAP_NET_RAW"}},
			mayDo{},
			"/usr/share/prefork/raw-sockets.conf",
		},
		"capability of no drop-in": {
			fleetfile.Worker{AmbientCapabilities: []string{"CAP_SYS_TIME"}},
			mayDo{},
			"add the capability to AmbientCapabilities=",
		},
		"capability allowed": {
			fleetfile.Worker{AmbientCapabilities: []string{"CAP_NET_RAW"}},
			mayDo{permitted: 1 << unix.CAP_NET_RAW},
			"",
		},
		"working directory in a home": {
			fleetfile.Worker{WorkingDirectory: "/home/app"},
			mayDo{hidden: []string{"/home"}},
			"worker.w.working_directory: this master is not permitted to see /home/app: remove the key, or allow it: " +
				"install -D -m0644 -t /etc/systemd/system/prefork@f.service.d /usr/share/prefork/home.conf",
		},
		"program in a home":     {fleetfile.Worker{Exec: []string{"/root/x.py"}}, mayDo{hidden: []string{"/root"}}, "worker.w.exec: "},
		"environment in a home": {fleetfile.Worker{EnvironmentFiles: []envfile.File{{Path: "/home/x", Optional: true}}}, mayDo{hidden: []string{"/home"}}, "worker.w.environment_file: "},
		"home that can be seen": {fleetfile.Worker{WorkingDirectory: "/home/app"}, mayDo{}, ""},
		"no home":               {fleetfile.Worker{WorkingDirectory: "/homes"}, mayDo{hidden: []string{"/home"}}, ""},
	} {
		check := check{file: &fleetfile.File{Name: "f", Path: "/etc/prefork/f.toml"}, managed: true}
		c.worker.Name = "w"
		check.worker(&c.worker, c.rights)
		switch {
		case c.want == "" && check.err != nil:
			t.Errorf("%s: refused: %v", name, check.err)
		case c.want != "" && (check.err == nil || !strings.Contains(check.err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, check.err, c.want)
		}
	}
}

func TestFloorInAHomeIsRefused(t *testing.T) {
	for key, floor := range map[string]fleetfile.Floor{
		"floor.python: ": {Python: "/home/app/venv/bin/python"},
		"floor.zygote: ": {Zygote: []string{"/home/app/zygote"}},
		"floor.path: ":   {Python: "python3", Path: []string{"/opt/app", "/home/app"}},
	} {
		check := check{file: &fleetfile.File{Name: "f"}, managed: true}
		check.floor(&floor, mayDo{hidden: []string{"/home"}})
		if check.err == nil || !strings.Contains(check.err.Error(), key) || !strings.Contains(check.err.Error(), "/home.conf") {
			t.Errorf("%+v: %v", floor, check.err)
		}
	}
}

// TestLowestWantedIsAsked: a worker that goes back in line does not take away
// from one that comes first.
func TestLowestWantedIsAsked(t *testing.T) {
	if permittedCapabilities()&(1<<unix.CAP_SYS_NICE) == 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs CAP_SYS_NICE, and with CI=true nothing is skipped")
		}
		t.Skip("needs CAP_SYS_NICE")
	}
	low, high := -5, 10
	file := &fleetfile.File{Workers: []fleetfile.Worker{{Nice: &high}, {Nice: &low}, {}, {Nice: &high}}}
	if r := ask(file, func(int) int { return 0 }); r.nice > low {
		t.Errorf("the lowest nice is %d, want %d", r.nice, low)
	}
}
