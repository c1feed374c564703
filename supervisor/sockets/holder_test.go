// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Who is in the way is named, whatever kind of socket it has.
func TestWhoListensIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "its socket")
	stream, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close() //nolint:errcheck // a test's
	datagram, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close() //nolint:errcheck // a test's
	file, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // a test's
	_, port, _ := net.SplitHostPort(stream.Addr().String())
	for listen, kind := range map[string]fleetfile.SocketType{
		port: fleetfile.Stream, "127.0.0.1:" + port: fleetfile.Stream, datagram.LocalAddr().String(): fleetfile.Datagram, path: fleetfile.Stream,
	} {
		f, err := fleetfile.Parse("edge", "/etc/prefork/edge.toml", fmt.Appendf(nil, "[socket.http]\nlisten = %q\ntype = %q\n", listen, kind), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := holderOf(f.Sockets[0].Listen[0], kind), fmt.Sprintf("sockets.test, process %d", os.Getpid()); got != want {
			t.Errorf("%s: got %q, want %q", listen, got, want)
		}
	}
	if got := holderOf(fleetfile.Address{Unix: path + ".other"}, fleetfile.Stream); got != "" {
		t.Errorf("nobody listens there, and it is %s", got)
	}
}
