// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/decnet/prefork/sdnotify"
)

// The whole life of a service: take the environment, tell that it is ready, say
// what it does, keep the watchdog quiet.
func Example() {
	manager, path := fakeManager() // under systemd: NOTIFY_SOCKET
	defer manager.Close()
	_ = os.Setenv("NOTIFY_SOCKET", path)
	_ = os.Setenv("WATCHDOG_USEC", "10000000")

	env := sdnotify.TakeEnvironment()
	client, err := sdnotify.New(env.NotifySocket)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	interval, err := env.Watchdog()
	if err != nil {
		log.Fatal(err)
	}

	err = client.Send(sdnotify.Status("3/3 ready"), sdnotify.Ready())
	if errors.Is(err, sdnotify.ErrFull) {
		fmt.Println("systemd is busy: again, later")
	}

	buf := make([]byte, 4096)
	n, err := manager.Read(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", buf[:n])
	fmt.Println("a ping every", interval/2)
	// Output:
	// READY=1
	// STATUS=3/3 ready
	// a ping every 5s
}

// A child inherits the environment without what systemd said to its parent.
func ExampleScrub() {
	environ := []string{"HOME=/root", "NOTIFY_SOCKET=/run/systemd/notify", "LISTEN_FDS=1", "LISTEN_ADDRESS=:80"}
	fmt.Println(sdnotify.Scrub(environ))
	// Output: [HOME=/root LISTEN_ADDRESS=:80]
}

// A barrier before the end: a process that exits at once may be gone before
// systemd has looked up whose message it was.
func ExampleClient_Barrier() {
	var client *sdnotify.Client // not under systemd
	fmt.Println(client.Send(sdnotify.Stopping()), client.Barrier(5*time.Second))
	// Output: <nil> <nil>
}

// fakeManager is a socket that stands for systemd's.
func fakeManager() (*net.UnixConn, string) {
	path := fmt.Sprintf("@sdnotify-example-%d", os.Getpid())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		log.Fatal(err)
	}
	return conn, path
}
