// SPDX-License-Identifier: AGPL-3.0-or-later

package verb

import "testing"

func TestCheck(t *testing.T) {
	for _, name := range All {
		if err := (Call{Name: name, Signal: 15}).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if member := name.Member(); member[0] < 'A' || member[0] > 'Z' || member[1:] != string(name)[1:] {
			t.Errorf("%s is called %s on the bus", name, member)
		}
	}
	for want, call := range map[string]Call{
		`there is no verb "reboot"`: {Name: "reboot"},
		`there is no verb ""`:       {},
		`there is no verb "Start"`:  {Name: "Start"},
		"there is no signal 0":      {Name: Kill},
		"there is no signal 65":     {Name: Kill, Signal: 65},
		"there is no signal -1":     {Name: Kill, Signal: -1},
	} {
		if err := call.Check(); err == nil || err.Error() != want {
			t.Errorf("%+v: got %v, want %s", call, err, want)
		}
	}
}
