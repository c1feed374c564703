// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

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
		s.touch(c)
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
	for _, kind := range types(v.in) {
		switch kind {
		case "s":
			c.args = append(c.args, m.body.string())
		case "as":
			c.list = m.body.strings()
		case "i":
			c.number = m.body.int32()
		case "t":
			c.id = m.body.uint64()
		}
	}
	if m.body.err != nil {
		return nil, failure("InvalidArgs", "%s: %v", v.name, m.body.err)
	}
	return s.carryOut(v, c)
}

// types splits the signature of what can be called.
func types(signature string) (all []string) {
	array := ""
	for _, letter := range signature {
		if letter == 'a' {
			array = "a"
			continue
		}
		all, array = append(all, array+string(letter)), ""
	}
	return all
}

// methodFor finds what is called.
func methodFor(iface, member, signature string) (v method, failed *dbus.Error) {
	v, ok := findMethod(iface, member, signature)
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
		if err := c.write(&dbus.Message{Type: dbus.TypeSignal, Body: all[i].body, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath:      dbus.MakeVariant(all[i].path),
			dbus.FieldInterface: dbus.MakeVariant(all[i].iface),
			dbus.FieldMember:    dbus.MakeVariant(all[i].member),
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
