// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const demandApp = `
import os, socket, time
import prefork


def note(name, text):
    path = os.path.join(os.environ["OUT"] + "." + name)
    with open(path + ".part", "w") as file:
        file.write(str(text))
    os.rename(path + ".part", path)


def one():
    """Answer one connection and end."""
    (listener,) = prefork.sockets()["http"]
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"%d" % os.getpid())


def hold():
    """Answer each connection, and keep it until the client goes."""
    (listener,) = prefork.sockets()["http"]
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"%d" % os.getpid())
            connection.recv(1)


def keeper():
    """Keep a pipe with a text in the supervisor, across a crash."""
    stored = prefork.stored()
    if not stored:
        r, w = os.pipe()
        os.write(w, b"kept")
        prefork.store(r, "pipe")
        prefork.store(w, "other end")
        note("first", os.getpid())
        while True:
            time.sleep(1000)
    (fd,) = stored["pipe"]
    note("second", os.read(fd, 10).decode() + " " + os.environ["LISTEN_FDNAMES"])
    prefork.unstore("pipe")
    while True:
        time.sleep(1000)
`

func (r *rig) connect(port int) (net.Conn, int) {
	r.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	buf := make([]byte, 16)
	n, err := conn.Read(buf)
	if err != nil {
		r.t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(buf[:n]))
	if err != nil {
		r.t.Fatal(err)
	}
	return conn, pid
}

func demandFleet(port int, entry string, count int) string {
	return fmt.Sprintf(`
[floor]
path = ["DIR"]
preload = ["demand"]
[socket.http]
listen = "127.0.0.1:%d"
[worker.web]
entry = "demand:%s"
count = %d
sockets = ["http"]
on_demand = true
`, port, entry, count)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A worker on demand has no process until a connection waits, and none again
// after it has ended cleanly. The fleet is ready meanwhile, and stays.
func TestOnDemand(t *testing.T) {
	port := freePort(t)
	r := prepare(t, demandFleet(port, "one", 1))
	r.write("demand.py", demandApp)
	r.start()
	r.waitReady()
	if got := r.children("prefork: web"); len(got) != 0 {
		t.Errorf("before a connection: %v", got)
	}
	seen := map[int]bool{}
	for range 3 {
		_, pid := r.connect(port)
		seen[pid] = true
	}
	if len(seen) != 3 {
		t.Errorf("three connections have %d processes, want 3", len(seen))
	}
	r.eventually("no process", func() bool { return len(r.children("prefork: web")) == 0 })
	r.eventually("the status", func() bool { return strings.Contains(r.status(), "1/1 ready (1 listening)") })
}

// Further slots start while connections still wait, up to count and no more.
func TestOnDemandScalesToCount(t *testing.T) {
	port := freePort(t)
	r := prepare(t, demandFleet(port, "hold", 2))
	r.write("demand.py", demandApp)
	r.start()
	r.waitReady()
	_, first := r.connect(port)
	if got := r.children("prefork: web"); len(got) != 1 {
		t.Errorf("for one connection: %v", got)
	}
	_, second := r.connect(port) // the first is busy
	if first == second {
		t.Errorf("process %d has both", first)
	}
	waiting, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	if got := r.children("prefork: web"); len(got) != 2 {
		t.Errorf("count = 2 has %v", got)
	}
}

// What a worker has stored is given to its successor.
func TestStoredDescriptorsSurviveACrash(t *testing.T) {
	r := prepare(t, `
[floor]
path = ["DIR"]
preload = ["demand"]
[worker.keeper]
entry = "demand:keeper"
restart_sec = "50ms"
file_descriptor_store_max = 4
`)
	r.write("demand.py", demandApp)
	r.start()
	r.waitReady()
	read := func(name string) string {
		text, _ := os.ReadFile(r.path("out") + "." + name)
		return string(text)
	}
	r.eventually("the first", func() bool { return read("first") != "" })
	pid, err := strconv.Atoi(read("first"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.eventually("the second", func() bool { return read("second") != "" })
	if got, want := read("second"), "kept pipe:other end"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
