// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/decnet/prefork/supervisor/control"
)

const saturatedFleet = `
[floor]
path = ["DIR"]
preload = ["app"]
[socket.http]
listen = "127.0.0.1:PORT"
backlog = 250
[socket.local]
listen = "DIR/local.sock"
[worker.web]
entry = "app:serve"
count = 2
sockets = ["http", "local"]
`

// silent connects n clients that ask for nothing: a worker that accepts one is busy with it.
func silent(t *testing.T, network, address string, n int) (clients []net.Conn) {
	t.Helper()
	for range n {
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, conn)
	}
	return clients
}

// TestAllWorkersAreBusy: with all workers busy, what waits is told by the service manager's
// status, by the program's and by the metric, and by none of them once it has been served.
func TestAllWorkersAreBusy(t *testing.T) {
	port := freePort(t)
	address, file := monitored(t, strings.ReplaceAll(saturatedFleet, "PORT", fmt.Sprint(port)))
	r := start(t, file)
	r.waitReady()
	http, local := fmt.Sprintf("127.0.0.1:%d", port), r.path("local.sock")
	series := func(name, socket, at string) string {
		return fmt.Sprintf(`prefork_socket_%s{socket=%q,address=%q}`, name, socket, at)
	}
	queue := series("accept_queue", "http", http)
	if got := value(t, address, queue); got != 0 {
		t.Errorf("%v wait for a fleet that is idle", got)
	}

	clients := silent(t, "tcp", http, 2)
	r.eventually("both workers are busy", func() bool { return value(t, address, queue) == 0 })
	clients = append(append(clients, silent(t, "tcp", http, 200)...), silent(t, "unix", local, 3)...)
	r.eventually("STATUS= tells of both sockets", func() bool {
		return r.status() == "2/2 ready; http: 200 connections wait; local: 3 connections wait"
	})
	for series, want := range map[string]float64{
		queue: 200, series("accept_queue_limit", "http", http): 250, series("accept_drops_total", "http", http): 0,
		series("accept_queue", "local", local): 3, series("accept_queue_limit", "local", local): 4096,
	} {
		if got := value(t, address, series); got != want {
			t.Errorf("%s is %v, want %v", series, got, want)
		}
	}
	if out, _, code := prefork(t, "status", r.path("fleet.toml")); code != 0 || !strings.Contains(out, "http: 200 connections wait") ||
		!strings.Contains(out, fmt.Sprintf("\n  socket http (%s): 200 of 250 connections wait\n", http)) {
		t.Errorf("%d, %s", code, out)
	}
	var f control.Status
	out, _, _ := prefork(t, "status", r.path("fleet.toml"), "--json")
	if err := json.Unmarshal([]byte(out), &f); err != nil || len(f.Sockets) != 2 ||
		f.Sockets[0] != (control.SocketStatus{Name: "http", Address: http, Type: "stream", Queue: 200, QueueLimit: 250}) ||
		f.Sockets[1] != (control.SocketStatus{Name: "local", Address: local, Type: "stream", Queue: 3, QueueLimit: 4096, Drops: -1}) {
		t.Errorf("got %+v, %v", f.Sockets, err)
	}

	// One more than the backlog is let in, and the kernel drops the rest.
	clients = append(clients, silent(t, "tcp", http, 51)...)
	go func() {
		if conn, err := net.Dial("tcp", http); err == nil { // once there is room
			_ = conn.Close()
		}
	}()
	r.eventually("the full queue is told", func() bool {
		return strings.Contains(r.status(), "http: 251 connections wait, no more are let in") && value(t, address, series("accept_drops_total", "http", http)) > 0
	})

	for _, c := range clients {
		_ = c.Close() // a worker reads the end of it, and takes the next
	}
	r.eventually("nothing waits at http", func() bool { return value(t, address, queue) == 0 && !strings.Contains(r.status(), "http:") })
}
