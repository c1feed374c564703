// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// ListenMetrics binds as [socket.*] does. That socket is the master's own: it is not
// handed down, and so may be a net.Listener. The caller closes it, which removes the file
// of a Unix socket. An error names the key and the remedy.
func ListenMetrics(a fleetfile.Address) (net.Listener, error) {
	fd, err := bindOne(&fleetfile.Socket{Type: fleetfile.Stream, Backlog: 4096, Mode: 0o666}, a)
	if err != nil {
		return nil, fmt.Errorf("metrics.listen: %s: %w; %s", a.Text, err, remedy(err, a, fleetfile.Stream))
	}
	file := os.NewFile(uintptr(fd), a.Text)
	defer file.Close() //nolint:errcheck // the listener has a copy
	listener, err := net.FileListener(file)
	if err == nil && strings.HasPrefix(a.Unix, "/") {
		listener = withFile{listener, a.Unix}
	}
	return listener, err
}

// withFile is a listener that removes its file, which package net does for those only that
// it has bound itself.
type withFile struct {
	net.Listener
	path string
}

func (l withFile) Close() error {
	_ = unix.Unlink(l.path) // another fleet may have replaced it already
	return l.Listener.Close()
}
