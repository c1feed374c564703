// SPDX-License-Identifier: AGPL-3.0-or-later

// Package accept takes the connections of a listener that is the master's own. It is no
// part of the loop: whoever serves clients from goroutines has one for this.
package accept

import (
	"errors"
	"net"
	"time"
)

// pause is how long nobody is accepted when there are no descriptors left.
const pause = time.Second

// All gives every connection to admit, which takes ownership and must not block, until the
// listener is closed.
func All(listener net.Listener, admit func(net.Conn)) {
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // EMFILE, for example: others have to give way first
			time.Sleep(pause)
		default:
			admit(conn)
		}
	}
}
