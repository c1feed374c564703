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
// work; of different addresses systemd's win, as clients already use them.
func checkPassed(log *output.Log, s *fleetfile.Socket, passed []Socket) error {
	var got []string
	for _, l := range passed {
		info, err := sdnotify.Describe(l.FD)
		if err != nil {
			return fmt.Errorf("socket %s, from systemd: %w", s.Name, err)
		}
		if info.Type != sockTypes[s.Type] || info.Type != unix.SOCK_DGRAM && !info.Listening {
			return fmt.Errorf("socket %s, from systemd: %s is not a listening %s socket: "+
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
	if !slices.Equal(got, want) {
		log.Warn(fmt.Sprintf("socket %s: systemd listens on %s, the fleet file says %s; systemd's is used: "+
			"change one of the two, then systemctl daemon-reload and restart the socket unit",
			s.Name, strings.Join(got, ", "), strings.Join(want, ", ")))
	}
	return nil
}

func canonical(a fleetfile.Address) string {
	if a.Unix != "" {
		return a.Unix
	}
	return a.IP.String()
}
