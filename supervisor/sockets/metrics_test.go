// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// TestMetricsListenWhereTheFileSays, or say in one line what to do.
func TestMetricsListenWhereTheFileSays(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // a test's
	path := filepath.Join(t.TempDir(), "metrics.sock")
	for _, c := range []struct{ listen, want string }{
		{path, ""},
		{path, ""}, // the file that is left is nobody's
		{"@prefork-test-metrics", ""},
		{taken.Addr().String(), "bind: address already in use; listen elsewhere, or stop who listens there: sockets.test, process " + fmt.Sprint(os.Getpid())},
		{"192.0.2.1:80", "bind: cannot assign requested address; listen on an address that this machine has"},
		{"/nowhere/metrics.sock", "no such file or directory; listen elsewhere"},
	} {
		file, err := fleetfile.Parse("edge", "/etc/prefork/edge.toml", []byte(fmt.Sprintf("[metrics]\nlisten = %q\n", c.listen)), fleetfile.Host{})
		if err != nil {
			t.Fatal(err)
		}
		listener, err := ListenMetrics(file.Metrics.Listen)
		prefix := "metrics.listen: " + c.listen + ": "
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.listen, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), prefix) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s%s", c.listen, err, prefix, c.want)
		}
		if err == nil && listener.Close() != nil {
			t.Errorf("%s: it cannot be closed", c.listen)
		}
	}
	if found, _ := filepath.Glob(path); found != nil {
		t.Error("the socket's file is left")
	}
}
