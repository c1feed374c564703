// SPDX-License-Identifier: AGPL-3.0-or-later

package accept

import (
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// poor is a listener without descriptors, at first.
type poor struct {
	failures int
	conns    chan net.Conn
}

func (l *poor) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, syscall.EMFILE
	}
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (*poor) Close() error   { return nil }
func (*poor) Addr() net.Addr { return nil }

// Without descriptors it waits, and does not spin; then all are admitted, until the end.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &poor{failures: 3, conns: make(chan net.Conn, 2)}
		client, server := net.Pipe()
		l.conns <- client
		l.conns <- server
		close(l.conns)
		began, admitted := time.Now(), 0
		All(l, func(conn net.Conn) {
			admitted++
			_ = conn.Close() // a pipe
		})
		if admitted != 2 || time.Since(began) != 3*pause {
			t.Errorf("%d are admitted after %s", admitted, time.Since(began))
		}
	})
}
