// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/internal/accept"
)

// The bounds of what clients may take.
const (
	maxClients   = 16
	readTimeout  = 5 * time.Second // for a whole request
	writeTimeout = 5 * time.Second // for a whole answer
	lingerTime   = time.Second     // for what was sent and is not wanted
	maxUnwanted  = 64 << 10        // bytes of it
)

// Backend is the fleet behind a server. Its methods are called from many
// goroutines, and may block for as long as a client is to wait.
type Backend interface {
	// Look returns the fleet as it is. Nothing has to be measured for it.
	Look() (*control.Status, error)

	// Idle is called when the last client has gone.
	Idle()

	// Sample returns the fleet with all that is measured. It is called once at a
	// time.
	Sample() (*Sample, error)
}

// Server answers on one socket. It may be used from any goroutine.
type Server struct {
	listener net.Listener
	backend  Backend
	done     sync.WaitGroup
	sampling sync.Mutex

	mu      sync.Mutex
	clients []*client // in the order in which they came
	closed  bool
}

// client is one connection. Its goroutine alone reads and writes.
type client struct {
	conn net.Conn
	asks bool // it has sent a request, and waits for the answer; by Server.mu
}

// Serve answers on a socket that listens. It takes ownership of the listener, and
// the caller closes the server.
func Serve(listener net.Listener, backend Backend) *Server {
	s := &Server{listener: listener, backend: backend}
	s.done.Add(1)
	go s.accept()
	return s
}

// Close ends all connections, and waits until nothing is served any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	_ = s.listener.Close() // nobody else has it
	for _, c := range s.clients {
		_ = c.conn.Close() // its goroutine ends
	}
	s.mu.Unlock()
	s.done.Wait()
}

func (s *Server) accept() {
	defer s.done.Done()
	accept.All(s.listener, func(conn net.Conn) { s.admit(&client{conn: conn}) })
}

func (s *Server) admit(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.conn.Close() // it came too late
		return
	}
	if len(s.clients) >= maxClients {
		s.makeRoom()
	}
	s.clients = append(s.clients, c)
	s.done.Add(1)
	go s.serve(c)
}

// makeRoom ends the first one that asks for nothing, so that who only connects
// keeps nobody out who asks; if all do, the first one.
func (s *Server) makeRoom() {
	i := max(0, slices.IndexFunc(s.clients, func(c *client) bool { return !c.asks }))
	_ = s.clients[i].conn.Close() // its goroutine ends
	s.clients = slices.Delete(s.clients, i, i+1)
}

func (s *Server) setAsks(c *client, asks bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.asks = asks
}

func (s *Server) forget(c *client) {
	_ = c.conn.Close() // all was written that could be
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(s.clients, func(o *client) bool { return o == c })
	if len(s.clients) == 0 {
		s.backend.Idle()
	}
}

// serve reads one request, answers it and hangs up.
func (s *Server) serve(c *client) {
	defer s.done.Done()
	defer s.forget(c)
	_ = c.conn.SetReadDeadline(time.Now().Add(readTimeout)) // it fails if the connection is closed, and so does what follows
	head, err := readHead(c.conn)
	if err != nil && !errors.Is(err, errTooLong) {
		return // nobody waits for an answer any more
	}
	s.setAsks(c, true)
	a := s.answer(head, err)
	_ = c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // the same
	if _, err = c.conn.Write(a.bytes()); err != nil {
		return
	}
	s.setAsks(c, false)
	hangUp(c.conn)
}

// hangUp reads what the client has sent beyond its request: to close a socket
// with something to read resets the connection, and the answer may be lost.
func hangUp(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(lingerTime)) // its goroutine ends
	_, _ = io.CopyN(io.Discard, conn, maxUnwanted)       // closing fails only if it is closed already
}

// answer is a response of HTTP.
type answer struct {
	status int
	kind   string
	body   []byte
	noBody bool // the body is only measured
}

var reasons = map[int]string{
	200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
	431: "Request Header Fields Too Large", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}

func (a *answer) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n",
		a.status, reasons[a.status], time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), a.kind, len(a.body))
	if a.status == 405 {
		b.WriteString("Allow: GET, HEAD\r\n")
	}
	b.WriteString("\r\n")
	if !a.noBody {
		b.Write(a.body)
	}
	return b.Bytes()
}

// line is an answer of one line of text.
func line(status int, text string) *answer {
	oneLine := strings.Map(func(r rune) rune {
		if isControl(r) {
			return ' '
		}
		return r
	}, text)
	return &answer{status: status, kind: "text/plain; charset=utf-8", body: []byte(oneLine + "\n")}
}

func (s *Server) answer(head []byte, err error) *answer {
	if err != nil {
		return line(431, err.Error())
	}
	q, no := parse(head)
	a := (*answer)(nil)
	switch {
	case no != nil:
		a = line(no.status, no.text)
	case q.path == "/metrics":
		a = s.metrics(&q)
	case q.path == "/healthz":
		a = s.health()
	case q.path == "/readyz":
		a = s.readiness(&q)
	default:
		a = line(404, "there are /metrics, /healthz and /readyz")
	}
	a.noBody = q.noBody
	return a
}

func (s *Server) metrics(q *request) *answer {
	s.sampling.Lock()
	defer s.sampling.Unlock()
	sample, err := s.backend.Sample()
	if err != nil {
		return line(503, err.Error())
	}
	var b bytes.Buffer
	_ = Write(&b, sample, q.format()) // a buffer takes all
	return &answer{status: 200, kind: q.format().contentType(), body: b.Bytes()}
}

func (s *Server) health() *answer {
	if _, err := s.backend.Look(); err != nil {
		return line(503, err.Error())
	}
	return line(200, "ok")
}

func (s *Server) readiness(q *request) *answer {
	f, err := s.backend.Look()
	if err != nil {
		return line(503, err.Error())
	}
	wants, no := q.wants(f)
	if no != nil {
		return line(no.status, no.text)
	}
	ready, why := control.Readiness(f, wants)
	if !ready {
		return line(503, why)
	}
	return line(200, why)
}
