// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/accept"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/verb"
)

// The bounds of what clients may take.
const (
	maxClients   = 64
	maxMessage   = 4096 // bytes; what can be called takes little
	authTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second

	closePatience = time.Second
)

// Server offers a fleet on a socket. It may be used from any goroutine.
type Server struct {
	listener *net.UnixListener
	guid     string
	backend  Backend
	done     sync.WaitGroup

	closing  chan struct{}
	changed  chan struct{} // has room for one
	watching atomic.Int32  // how many watchers there are

	mu       sync.Mutex
	clients  []*client // the one that has been silent longest comes first
	watchers map[*watcher]bool
	closed   bool
}

// Backend is the fleet behind a server. Its methods are called from many
// goroutines, and may block for as long as a client is to wait.
type Backend interface {
	// Look returns the fleet as it is.
	Look() (*Status, error)

	// Measure asks the kernel for those properties of f and of the slots in it
	// that come from there.
	Measure(f *Status)

	// History is what last happened to a slot, the oldest first; never nil.
	History(slot string) []HistoryEntry

	// Idle is called when the last client has gone.
	Idle()

	// MayChange says why a caller must not change the fleet; nil: it may.
	MayChange(Caller) error

	// What follows changes something, but for Plan and Outcome, and is asked only for who
	// may. What changes the fleet returns the number of the change, which goes on.

	// Operate does something to a slot.
	Operate(slot string, call verb.Call, by Caller) error

	// Reload makes the fleet what its file says. A [BadFile] is not even tried.
	Reload(by Caller) (change uint64, err error)

	// Plan is what Reload would do.
	Plan(by Caller) ([]PlanStep, error)

	// Restart replaces the processes of these workers and slots; of none, it makes the
	// fleet what its file says, and replaces all of it on a new floor.
	Restart(names []string, by Caller) (change uint64, err error)

	// Try reads the file and loads a new floor, to see whether Restart could, and drops it.
	Try(by Caller) (change uint64, err error)

	// Scale gives a worker so many slots, or, of -1, as many as its file says.
	Scale(worker string, count int, by Caller) (change uint64, err error)

	// Cancel ends the change that is under way: what it has replaced goes back.
	Cancel(by Caller) error

	// Probe has the floor of a generation fork a process that lists its objects, for who may
	// look into it, and returns its pid.
	Probe(generation int, by Caller) (pid uint32, err error)

	// Outcome is what has become of a change; the zero Outcome while it is under way.
	Outcome(change uint64) (Outcome, error)
}

// Caller is who has connected, as the kernel says.
type Caller struct {
	UID   uint32
	PID   int // 0: of another pid namespace
	PIDFD int // -1 before Linux 6.5. It stays the server's
}

// Listen makes the socket, which its owner and root may open, in the place of
// whatever stands there, and serves it. The caller closes the server.
func Listen(path string, backend Backend) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { linux.RefuseRights(int(fd)) }) // no method takes any
	}}
	old := unix.Umask(0o177)
	listener, err := config.Listen(context.Background(), "unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, err
	}
	_ = os.Chmod(path, 0o600) // it is: this tells who waits for it (inotify(7)) that it listens
	var guid [16]byte
	_, _ = rand.Read(guid[:]) // never fails
	s := &Server{
		listener: listener.(*net.UnixListener), guid: hex.EncodeToString(guid[:]), backend: backend,
		closing: make(chan struct{}), changed: make(chan struct{}, 1), watchers: map[*watcher]bool{},
	}
	s.done.Add(2)
	go s.accept()
	go s.publish()
	return s, nil
}

// Close ends all connections and removes the socket. It waits until nothing is
// served any more, but not for long: a client may have sent what takes its time to be
// dropped, where the kernel does not refuse that.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	close(s.closing)
	_ = s.listener.Close() // it removes the socket, too
	for _, c := range s.clients {
		go c.hangUp() // what it waits for will not come
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.done.Wait()
		close(ended)
	}()
	late := time.NewTimer(closePatience)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
	}
}

func (s *Server) accept() {
	defer s.done.Done()
	accept.All(s.listener, func(conn net.Conn) {
		own := conn.(*net.UnixConn) // of such a listener
		s.admit(&client{server: s, conn: own, reader: bufio.NewReaderSize(own, maxMessage), gone: make(chan struct{})})
	})
}

// admit serves a client that the kernel knows to be root or the owner.
func (s *Server) admit(c *client) {
	var err error
	if c.caller, err = peer(c.conn); err != nil || c.caller.UID != 0 && c.caller.UID != uint32(os.Geteuid()) {
		c.close() // no word to strangers
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.close() // it came too late
		return
	}
	if len(s.clients) >= maxClients {
		go s.evict().hangUp() // its goroutine ends
	}
	s.clients = append(s.clients, c)
	s.done.Add(1)
	go s.serve(c)
}

// evict chooses who makes room: the one that has been silent longest, of the owner's
// before root's, so that workers, which may share the owner's uid, cannot keep
// root out.
func (s *Server) evict() *client {
	i := 0
	if n := slices.IndexFunc(s.clients, func(c *client) bool { return c.caller.UID != 0 }); n >= 0 {
		i = n
	}
	victim := s.clients[i]
	s.clients = slices.Delete(s.clients, i, i+1)
	return victim
}

// touch moves a client to the end of those who have to make room.
func (s *Server) touch(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.clients, c); i >= 0 {
		s.clients = append(slices.Delete(s.clients, i, i+1), c)
	}
}

func (s *Server) forget(c *client) {
	close(c.gone)
	c.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients = slices.DeleteFunc(s.clients, func(o *client) bool { return o == c })
	if len(s.clients) == 0 {
		s.backend.Idle()
	}
}
