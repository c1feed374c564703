// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/packaging/bench/peer"
)

// connection is one request to a system. It is a bare descriptor: the time that
// Go's net poller takes is not to be measured.
type connection int

func (c connection) close() { _ = unix.Close(int(c)) }

// connect blocks until there is a listener.
func connect(port int) (connection, error) {
	for start := time.Now(); ; time.Sleep(500 * time.Microsecond) {
		c, err := connectOnce(port)
		if !errors.Is(err, unix.ECONNREFUSED) || time.Since(start) > peer.Patience {
			return c, err
		}
	}
}

// connectOnce fails if there is no listener.
func connectOnce(port int) (connection, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	limit := unix.NsecToTimeval(int64(peer.Patience))
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit) // a guard only
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return connection(fd), nil
}

// ask blocks until a worker answers, and returns its pid.
func (c connection) ask(path string) (int, error) {
	if _, err := unix.Write(int(c), []byte("GET "+path+" HTTP/1.0\r\n\r\n")); err != nil {
		return 0, os.NewSyscallError("write", err)
	}
	var answer []byte
	for {
		var buf [1000]byte
		n, err := unix.Read(int(c), buf[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%d bytes of an answer: %v", len(answer), err)
		}
		answer = append(answer, buf[:n]...)
		_, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
		if ok && bytes.HasSuffix(body, []byte("\n")) {
			return strconv.Atoi(string(bytes.TrimSpace(body)))
		}
	}
}

// ask makes one request and returns the pid of the worker that answered.
func ask(port int, path string) (int, error) {
	c, err := connect(port)
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.ask(path)
}

// askOnce is ask that does not wait for a listener.
func askOnce(port int, path string) (int, error) {
	c, err := connectOnce(port)
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.ask(path)
}

// hold keeps n workers of a system busy, and returns when all of them are. The
// caller closes the connections.
func hold(port, n int, path string) ([]connection, error) {
	held := make([]connection, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if held[i], errs[i] = connect(port); errs[i] == nil {
				_, errs[i] = held[i].ask(path)
			}
		})
	}
	wg.Wait()
	return held, errors.Join(errs...)
}

// release ends that. It may be called twice.
func release(held []connection) {
	for i, c := range held {
		if c > 0 {
			c.close()
		}
		held[i] = -1
	}
}
