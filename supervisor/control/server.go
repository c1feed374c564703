// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/verb"
)

// The bounds of what clients may take.
const (
	maxClients   = 64
	maxMessage   = 4096 // bytes; what can be called takes little
	authTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	acceptPause  = time.Second // when there are no descriptors left

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

	// Operate does something to a slot. It is asked only for who may.
	Operate(slot string, call verb.Call, by Caller) error
}

// Caller is who has connected, as the kernel says.
type Caller struct {
	UID   uint32
	PID   int // 0: of another pid namespace
	PIDFD int // -1 before Linux 6.5. It stays the server's
}

// client is one connection. Its goroutine alone reads; a second one writes the
// signals, if there are any.
type client struct {
	server *Server
	conn   *net.UnixConn
	reader *bufio.Reader
	caller Caller

	matches  atomic.Int32 // how often it has asked for signals
	watching bool         // it has, once
	gone     chan struct{}

	writing sync.Mutex
	serial  uint32
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
	for {
		conn, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // EMFILE, for example: others have to give way first
			time.Sleep(acceptPause)
			continue
		}
		s.admit(&client{server: s, conn: conn, reader: bufio.NewReaderSize(conn, maxMessage), gone: make(chan struct{})})
	}
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
		go s.victim().hangUp() // its goroutine ends
	}
	s.clients = append(s.clients, c)
	s.done.Add(1)
	go s.serve(c)
}

// victim is who makes room: the one that has been silent longest, of the owner's
// before root's, so that workers, which may share the owner's uid, cannot keep
// root out.
func (s *Server) victim() *client {
	i := 0
	if n := slices.IndexFunc(s.clients, func(c *client) bool { return c.caller.UID != 0 }); n >= 0 {
		i = n
	}
	victim := s.clients[i]
	s.clients = slices.Delete(s.clients, i, i+1)
	return victim
}

// heard moves a client to the end of those who have to make room.
func (s *Server) heard(c *client) {
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

func (s *Server) serve(c *client) {
	defer s.done.Done()
	defer s.forget(c)
	if c.conn.SetDeadline(time.Now().Add(authTimeout)) != nil || authenticate(c.reader, c.conn, c.caller.UID, s.guid) != nil ||
		c.conn.SetDeadline(time.Time{}) != nil {
		return
	}
	for {
		m, err := c.receive()
		if err != nil {
			return
		}
		s.heard(c)
		if m.kind != methodCall {
			continue
		}
		result, failed := s.answer(&m, c)
		if m.flags&noReplyExpected == 0 && c.reply(m.serial, result, failed) != nil {
			return
		}
	}
}

// receive reads one message.
func (c *client) receive() (m message, err error) {
	head, err := c.reader.Peek(fixedSize)
	if err != nil {
		return m, err
	}
	length, err := lengthOf(head)
	if err != nil {
		return m, err
	}
	if length > maxMessage {
		return m, fmt.Errorf("a message of %d bytes", length)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(c.reader, text); err != nil {
		return m, err
	}
	return parse(text)
}

// answer carries out a call that is on the list, and no other.
func (s *Server) answer(m *message, by *client) (any, *dbus.Error) {
	v, failed := methodFor(m.iface, m.member, m.signature)
	if failed != nil {
		return nil, failed
	}
	c := &call{path: dbus.ObjectPath(m.path), client: by, caller: by.caller}
	for _, letter := range v.in {
		switch letter {
		case 's':
			c.args = append(c.args, m.body.string())
		case 'i':
			c.number = m.body.int32()
		}
	}
	if m.body.err != nil {
		return nil, failure("InvalidArgs", "%s: %v", v.name, m.body.err)
	}
	return s.carryOut(v, c)
}

// methodFor finds what is called.
func methodFor(iface, member, signature string) (v method, failed *dbus.Error) {
	v, ok := findMethod(iface, member)
	switch {
	case !ok:
		return v, failure("UnknownMethod", "there is no method %q of %q", member, iface)
	case signature != v.in:
		return v, failure("InvalidArgs", "%s takes arguments of types %q, not %q", v.name, v.in, signature)
	}
	return v, nil
}

// carryOut gives a call what its method needs, if the caller has the right.
func (s *Server) carryOut(v method, c *call) (any, *dbus.Error) {
	c.backend = s.backend
	if v.access == accessChange {
		if err := s.backend.MayChange(c.caller); err != nil {
			return nil, failure("AccessDenied", "%v", err)
		}
	}
	if v.access != accessNone {
		var err error
		if c.fleet, err = s.backend.Look(); err != nil {
			return nil, failure("Timeout", "%v", err)
		}
	}
	return v.answer(c)
}

func (c *client) reply(to uint32, result any, failed *dbus.Error) error {
	m := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(to),
		dbus.FieldDestination: dbus.MakeVariant(":1.1"),
	}}
	switch {
	case failed != nil:
		m.Type, m.Body = dbus.TypeError, failed.Body
		m.Headers[dbus.FieldErrorName] = dbus.MakeVariant(failed.Name)
	case result != nil:
		m.Body = []any{result}
	}
	return c.write(m)
}

// watch sends the client what changes from now on. It is for its goroutine.
func (c *client) watch(seen *Status) {
	c.matches.Add(1)
	if c.watching {
		return
	}
	c.watching = true
	c.server.watch(seen, c.gone, c.signal)
}

func (c *client) unwatch() {
	if c.matches.Load() > 0 {
		c.matches.Add(-1)
	}
}

// signal tells of changes, if they are still wanted.
func (c *client) signal(all []change) error {
	if c.matches.Load() == 0 {
		return nil
	}
	for i := range all {
		if err := c.write(&dbus.Message{Type: dbus.TypeSignal, Body: all[i].body(), Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:      dbus.MakeVariant(all[i].path),
			dbus.FieldInterface: dbus.MakeVariant(propertiesInterface),
			dbus.FieldMember:    dbus.MakeVariant(propertiesChanged),
		}}); err != nil {
			_ = c.conn.Close() // its goroutine ends
			return err
		}
	}
	return nil
}

// write sends a message. A client that does not read fails it.
func (c *client) write(m *dbus.Message) error {
	m.Headers[dbus.FieldSender] = dbus.MakeVariant(":1.0")
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	var text bytes.Buffer
	if err := m.EncodeTo(&text, binary.LittleEndian); err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	// A message of this package's has no serial number, and 0 is not valid.
	c.serial++
	binary.LittleEndian.PutUint32(text.Bytes()[8:], c.serial)
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(text.Bytes())
	return err
}

// hangUp ends a client that another goroutine serves. It may block for as long as
// the client likes: it can have sent descriptors before Linux 6.16.
func (c *client) hangUp() { _ = c.conn.Close() } // nothing is waiting to be written

// close is for the client's goroutine, or for who does not start it.
func (c *client) close() {
	_ = c.conn.Close() // nothing is waiting to be written
	if c.caller.PIDFD >= 0 {
		_ = unix.Close(c.caller.PIDFD) // read only
		c.caller.PIDFD = -1
	}
}

// soPeerPIDFD came with Linux 6.5 (unix(7)).
const soPeerPIDFD = 77

// peer asks the kernel who has connected (unix(7)).
func peer(conn *net.UnixConn) (who Caller, err error) {
	who.PIDFD = -1
	raw, err := conn.SyscallConn()
	if err != nil {
		return who, err
	}
	var cred *unix.Ucred
	control := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			if pidfd, e := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, soPeerPIDFD); e == nil {
				who.PIDFD = pidfd // close-on-exec
			}
		}
	})
	if err = errors.Join(control, err); err != nil {
		return who, err
	}
	who.UID, who.PID = cred.Uid, int(cred.Pid)
	return who, nil
}
