// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take before the run is given up.
const patience = time.Minute

// birth is what a worker says in the first line of its entry.
type birth struct {
	slot string
	pid  int
	at   int64 // on the clock of now
}

// births hears them.
type births struct{ conn *net.UnixConn }

func listenBirths(path string) (*births, error) {
	_ = os.Remove(path) // of an earlier run
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	// Workers of the unit are the user prefork.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, err
	}
	return &births{conn}, nil
}

// next blocks until a worker starts, or until the deadline.
func (b *births) next(deadline time.Time) (w birth, err error) {
	var buf [200]byte
	_ = b.conn.SetReadDeadline(deadline) // else the read would say so
	n, err := b.conn.Read(buf[:])
	if err != nil {
		return w, err
	}
	_, err = fmt.Sscan(string(buf[:n]), &w.slot, &w.pid, &w.at)
	return w, err
}

// await blocks until so many workers have started.
func (b *births) await(n int) (all []birth, err error) {
	for len(all) < n {
		w, err := b.next(time.Now().Add(patience))
		if err != nil {
			return nil, fmt.Errorf("%d of %d workers have started: %w", len(all), n, err)
		}
		all = append(all, w)
	}
	return all, nil
}

// connection is one request to a system. It is a bare descriptor: the time that
// Go's net poller takes is not to be measured.
type connection int

func (c connection) close() { _ = unix.Close(int(c)) }

// connect blocks until there is a listener.
func connect(port int) (connection, error) {
	for start := time.Now(); ; time.Sleep(500 * time.Microsecond) {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, os.NewSyscallError("socket", err)
		}
		limit := unix.NsecToTimeval(int64(patience))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit) // a guard only
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
		if err == nil {
			return connection(fd), nil
		}
		_ = unix.Close(fd)
		if !errors.Is(err, unix.ECONNREFUSED) || time.Since(start) > patience {
			return -1, os.NewSyscallError("connect", err)
		}
	}
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

func release(held []connection) {
	for _, c := range held {
		c.close()
	}
}
