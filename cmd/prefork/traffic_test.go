// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// traffic asks a fleet's HTTP server without a pause, half of it on connections that are
// kept, and counts every failure: nothing is tried again.
type traffic struct {
	address string
	stop    chan struct{}
	done    sync.WaitGroup

	asked     atomic.Int64
	connected atomic.Int64

	mu       sync.Mutex
	failures []string
	answers  map[string]int // by what was answered
}

const loadClients = 8

func startTraffic(t *testing.T, address string) *traffic {
	t.Helper()
	l := &traffic{address: address, stop: make(chan struct{}), answers: map[string]int{}}
	for i := range loadClients {
		l.done.Go(func() { l.client(i%2 == 0) })
	}
	t.Cleanup(l.end)
	return l
}

func (l *traffic) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
}

// client asks until the end; keeps says whether it keeps its connections.
func (l *traffic) client(keeps bool) {
	var conn net.Conn
	for {
		select {
		case <-l.stop:
			if conn != nil {
				_ = conn.Close()
			}
			return
		default:
		}
		var err error
		if conn, err = l.ask(conn, keeps); err != nil {
			l.failed(err)
			conn = nil
		}
		time.Sleep(2 * time.Millisecond) // some thousand requests a second are enough
	}
}

func (l *traffic) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failures = append(l.failures, fmt.Sprintf("%s: %v", time.Now().Format("15:04:05.000"), err))
}

// ask sends one request, on a new connection if there is none, and returns the connection
// if it stays.
func (l *traffic) ask(conn net.Conn, keeps bool) (net.Conn, error) {
	l.asked.Add(1)
	if conn == nil {
		l.connected.Add(1)
		var err error
		if conn, err = net.DialTimeout("tcp", l.address, patience); err != nil {
			return nil, err
		}
	}
	how := "close"
	if keeps {
		how = "keep-alive"
	}
	_ = conn.SetDeadline(time.Now().Add(patience)) // it is open
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: fleet\r\nConnection: %s\r\n\r\n", how); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %w", resp.Status, err)
	}
	l.mu.Lock()
	l.answers[strings.TrimSpace(string(body))]++
	l.mu.Unlock()
	if resp.Close {
		_ = conn.Close()
		return nil, nil
	}
	return conn, nil
}

// check fails the test if something has failed since the load began.
func (l *traffic) check(t *testing.T, when string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, failure := range l.failures {
		if i == 5 {
			t.Errorf("%s: and %d more", when, len(l.failures)-i)
			break
		}
		t.Errorf("%s: a request failed: %s", when, failure)
	}
	l.failures = nil
}

// answered is who has answered: by words of the answer, the pid, the generation of the
// floor and what RELEASE is.
func (l *traffic) answered() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	answers := l.answers
	l.answers = map[string]int{}
	return answers
}

// copyTo copies a file of testdata to the test's folder.
func (r *rig) copyTo(name, from string) {
	r.t.Helper()
	text, err := os.ReadFile("testdata/" + from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(name, string(text))
}
