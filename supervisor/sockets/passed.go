// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/fleetfile"
	"github.com/decnet/prefork/supervisor/output"
)

// checkPassed compares what systemd passed with the file. A wrong type cannot
// work; of different addresses systemd's win, as clients already use them, and same is
// false.
func checkPassed(log *output.Log, file *fleetfile.File, s *fleetfile.Socket, passed []Socket) (same bool, err error) {
	var got []string
	for _, l := range passed {
		info, err := sdnotify.Describe(l.FD)
		if err != nil {
			return false, fmt.Errorf("socket %s, from systemd: %w", s.Name, err)
		}
		if info.Type != sockTypes[s.Type] || info.Type != unix.SOCK_DGRAM && !info.Listening {
			return false, fmt.Errorf("socket %s, from systemd: %s is not a listening %s socket: "+
				"correct its socket unit or socket.%s.type", s.Name, info.Address, s.Type, s.Name)
		}
		got = append(got, info.Address)
	}
	var want []string
	for _, a := range s.Listen {
		if a.IsPort() && !a.V6Only && slices.Contains(got, ipv4(a).String()) {
			a.IP = ipv4(a) // systemd, too, found a kernel without IPv6
		}
		want = append(want, canonical(a))
	}
	slices.Sort(got)
	slices.Sort(want)
	if same = slices.Equal(got, want); !same {
		log.Warn(fmt.Sprintf("socket %s: systemd listens on %s, the fleet file says %s; systemd's is used until prefork restart --now %s",
			s.Name, strings.Join(got, ", "), strings.Join(want, ", "), file.Name))
	}
	return same, nil
}

func canonical(a fleetfile.Address) string {
	if a.Unix != "" {
		return a.Unix
	}
	return a.IP.String()
}
