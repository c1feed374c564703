// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// BusName is the name of a fleet on the system bus. What a name cannot hold is
// written as in a path.
func BusName(fleet string) string { return Interface + ".f_" + escape(fleet) }

const (
	maxBusCalls = 64 // at a time
	busTimeout  = 5 * time.Second

	// How long after a lost bus the next try comes.
	minBusPause = time.Second
	maxBusPause = time.Minute
)

// JoinBus offers the fleet on the system bus under its name, too, for as long as
// the server is open. A bus that goes away is joined again when it is back. It does
// not block. Why the fleet is not there is told to report, unless there is no bus.
func (s *Server) JoinBus(name string, report func(error)) {
	b := &bus{server: s, name: name, places: make(chan struct{}, maxBusCalls)}
	go func() { // nobody waits for it: a bus that does not answer holds nothing up
		if err := b.join(); err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				report(err)
			}
			return
		}
		for pause := minBusPause; ; pause = min(2*pause, maxBusPause) {
			select {
			case <-s.closing:
				return
			case <-time.After(pause):
			}
			if b.join() == nil {
				pause = minBusPause
			}
		}
	}()
}

// bus is one connection after the other to the system bus, which is trusted to say
// who sends what. It has checked the messages that come from there.
type bus struct {
	server *Server
	name   string
	places chan struct{} // has one for each call in flight
	conn   *dbus.Conn
}

// join offers the fleet until the bus goes away, which is no error.
func (b *bus) join() (err error) {
	if b.conn, err = dbus.SystemBusPrivate(dbus.WithHandler(b)); err != nil {
		return err
	}
	defer func() { _ = b.conn.Close() }() // a signal that is not sent has no reader
	if err := b.take(); err != nil {
		return err
	}
	gone := b.conn.Context().Done()
	b.server.watch(&Status{}, gone, b.signal) // at first it is all told
	select {
	case <-gone:
	case <-b.server.closing:
	}
	return nil
}

// take gets the name of the fleet. A bus that does not answer is given up.
func (b *bus) take() error {
	late := time.AfterFunc(busTimeout, func() { _ = b.conn.Close() }) // all calls that wait for an answer fail with it
	defer late.Stop()
	if err := b.conn.Auth(nil); err != nil {
		return fmt.Errorf("the bus: %w", err)
	}
	if err := b.conn.Hello(); err != nil {
		return fmt.Errorf("the bus: %w", err)
	}
	owned, err := b.conn.RequestName(b.name, dbus.NameFlagDoNotQueue)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", b.name, err)
	case owned != dbus.RequestNameReplyPrimaryOwner:
		return fmt.Errorf("%s: the name is another's", b.name)
	}
	return nil
}

func (b *bus) signal(all []change) error {
	for i := range all {
		if err := b.conn.Emit(all[i].path, all[i].iface+"."+all[i].member, all[i].body...); err != nil {
			return err
		}
	}
	return nil
}

// LookupObject implements [dbus.Handler]: what there is, is found out by the method.
func (b *bus) LookupObject(dbus.ObjectPath) (dbus.ServerObject, bool) { return b, true }

// LookupInterface implements [dbus.ServerObject]. The interface of a bus is the
// bus's own.
func (b *bus) LookupInterface(name string) (dbus.Interface, bool) {
	return busMethods{b, name}, name != busInterface
}

// busMethods are the methods of one interface; of any, if it is "".
type busMethods struct {
	bus   *bus
	iface string
}

// LookupMethod implements [dbus.Interface].
func (m busMethods) LookupMethod(name string) (dbus.Method, bool) {
	v, ok := findMethod(m.iface, name, "")
	return busMethod{m.bus}, ok && v.iface != busInterface
}

// busMethod takes a whole message, as the other side of the server does.
type busMethod struct{ bus *bus }

func (busMethod) NumArguments() int     { return 1 }
func (busMethod) NumReturns() int       { return 0 } // not asked for
func (busMethod) ArgumentValue(int) any { return dbus.Message{} }
func (busMethod) ReturnValue(int) any   { return nil } // not asked for

// DecodeArguments implements [dbus.ArgumentDecoder].
func (busMethod) DecodeArguments(_ *dbus.Conn, _ string, m *dbus.Message, _ []any) ([]any, error) {
	return []any{m}, nil
}

// Call implements [dbus.Method].
func (m busMethod) Call(args ...any) ([]any, error) {
	select {
	case m.bus.places <- struct{}{}:
		defer func() { <-m.bus.places }()
	default:
		return nil, failure("LimitsExceeded", "%d calls are being answered already", maxBusCalls)
	}
	result, failed := m.bus.answer(args[0].(*dbus.Message))
	switch {
	case failed != nil:
		return nil, failed
	case result == nil:
		return nil, nil
	default:
		return []any{result}, nil
	}
}

// answer carries out a call that is on the list, as the private socket does.
func (b *bus) answer(m *dbus.Message) (any, *dbus.Error) {
	v, failed := methodFor(headerOf(m, dbus.FieldInterface), headerOf(m, dbus.FieldMember), headerOf(m, dbus.FieldSignature))
	if failed != nil {
		return nil, failed
	}
	c := &call{path: dbus.ObjectPath(headerOf(m, dbus.FieldPath))}
	for _, arg := range m.Body { // of the types that the signature says
		switch arg := arg.(type) {
		case string:
			c.args = append(c.args, arg)
		case []string:
			c.list = arg
		case int32:
			c.number = arg
		case uint64:
			c.id = arg
		}
	}
	if v.access == accessChange {
		var err error
		if c.caller, err = b.who(headerOf(m, dbus.FieldSender)); err != nil {
			return nil, failure("AccessDenied", "who calls is not known: %v", err)
		}
	}
	return b.server.carryOut(v, c)
}

// headerOf is a header field as text, "" if it is not there.
func headerOf(m *dbus.Message, f dbus.HeaderField) string {
	switch value := m.Headers[f].Value().(type) {
	case string:
		return value
	case dbus.ObjectPath:
		return string(value)
	case dbus.Signature:
		return value.String()
	default:
		return ""
	}
}

// who asks the bus for the user and the process of a connection.
func (b *bus) who(sender string) (Caller, error) {
	var all map[string]dbus.Variant
	ctx, cancel := context.WithTimeout(context.Background(), busTimeout)
	defer cancel()
	call := b.conn.BusObject().CallWithContext(ctx, busInterface+".GetConnectionCredentials", 0, sender)
	if err := call.Store(&all); err != nil {
		return Caller{}, err
	}
	uid, known := all["UnixUserID"].Value().(uint32)
	pid, _ := all["ProcessID"].Value().(uint32)
	if !known || pid == 0 {
		return Caller{}, errors.New("the bus does not say")
	}
	return Caller{UID: uid, PID: int(pid), PIDFD: -1}, nil
}
