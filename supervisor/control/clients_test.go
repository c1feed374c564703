// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// raw connects without a library.
func raw(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(ceiling)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// sdBus is what libsystemd sends at once: it waits for no answer.
const sdBus = "\x00AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"

// encoded is a message as it goes over the wire.
func encoded(t testing.TB, m *dbus.Message) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.EncodeTo(&b, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b.Bytes()[8:], 1)
	return b.Bytes()
}

func ping(flags dbus.Flags) *dbus.Message {
	return &dbus.Message{Type: dbus.TypeMethodCall, Flags: flags, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/")), dbus.FieldMember: dbus.MakeVariant("Ping"),
	}}
}

func TestClientMaySendEverythingAtOnce(t *testing.T) {
	conn := raw(t, serve(t, lookAtDemo))
	if _, err := conn.Write(append([]byte(sdBus), append(encoded(t, ping(dbus.FlagNoReplyExpected)), encoded(t, ping(0))...)...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for _, want := range []string{"DATA", "OK ", "ERROR"} {
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, want) {
			t.Fatalf("got %q, %v, want %s", line, err, want)
		}
	}
	if m, err := dbus.DecodeMessage(r); err != nil || m.Type != dbus.TypeMethodReply || m.Serial() == 0 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// TestHostileClients are shown the door, or nothing.
func TestHostileClients(t *testing.T) {
	path := serve(t, lookAtDemo)
	huge := encoded(t, ping(0))
	binary.LittleEndian.PutUint32(huge[4:], 1<<26)
	for name, sent := range map[string]string{
		"no NUL":            "AUTH EXTERNAL\r\n",
		"another's uid":     "\x00AUTH EXTERNAL 3939393939\r\nBEGIN\r\n",
		"no authentication": "\x00BEGIN\r\n",
		"anonymous":         "\x00AUTH ANONYMOUS\r\nBEGIN\r\n",
		"many lines":        "\x00" + strings.Repeat("X\r\n", 1000),
		"a long line":       "\x00" + strings.Repeat("X", 100_000),
		"a huge message":    sdBus + string(huge),
		"not a message":     sdBus + strings.Repeat("\xff", 1000),
	} {
		conn := raw(t, path)
		_, _ = io.WriteString(conn, sent) // it may be closed before all is sent
		_, err := io.Copy(io.Discard, conn)
		if err != nil && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := lookThere(within(t, ceiling), anyAt(path)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestIdleClientsKeepNobodyOut has a thousand that say nothing, and some that do
// not read.
func TestIdleClientsKeepNobodyOut(t *testing.T) {
	path := serve(t, lookAtDemo)
	for i := range 1000 {
		conn := raw(t, path)
		if i%10 == 0 {
			_, _ = io.WriteString(conn, sdBus) // it may have made room already
		}
	}
	deaf := raw(t, path)
	go func() {
		all := encoded(t, ping(0))
		for _, err := io.WriteString(deaf, sdBus); err == nil; {
			_, err = deaf.Write(all)
		}
	}()
	for range 10 {
		if _, err := lookThere(within(t, ceiling), anyAt(path)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVictimIsNotRoot: what shares the owner's uid makes room before root does.
func TestVictimIsNotRoot(t *testing.T) {
	a, b, c := &client{}, &client{caller: Caller{UID: 1000}}, &client{caller: Caller{UID: 1000}}
	s := &Server{clients: []*client{a, b, c}}
	s.touch(b)
	for _, want := range []*client{c, b, a} {
		if got := s.evict(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(sdBus), encoded(f, ping(0)))
	f.Add([]byte("\x00AUTH EXTERNAL 30\r\nBEGIN\r\n"), []byte("l\x01\x00\x01"))
	long := encoded(f, ping(0)) // of a path, which says that it has 4 GB
	binary.LittleEndian.PutUint32(long[20:], 0xfffffffa)
	f.Add([]byte(sdBus), long)
	s := &Server{backend: &backend{look: lookAtDemo}}
	f.Fuzz(func(t *testing.T, lines, messages []byte) {
		_ = authenticate(bufio.NewReaderSize(bytes.NewReader(lines), maxMessage), io.Discard, 0, "guid") // only that it ends
		c := &client{reader: bufio.NewReaderSize(bytes.NewReader(messages), maxMessage)}
		for {
			m, err := c.receive()
			if err != nil {
				return
			}
			if _, failed := s.answer(&m, &client{server: s}); failed == nil {
				if _, ok := findMethod(m.iface, m.member, m.signature); !ok {
					t.Errorf("%q of %q was answered", m.member, m.iface)
				}
			}
		}
	})
}

// However a connection ends in the middle of a message, the client has an error, and no
// panic: closed by its owner, reset, out of time.
func TestAClientWhoseConnectionEnds(t *testing.T) {
	var m bytes.Buffer
	signal := &dbus.Message{Type: dbus.TypeSignal, Body: []any{"x"}, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(Path), dbus.FieldInterface: dbus.MakeVariant(Interface), dbus.FieldMember: dbus.MakeVariant("X"),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf("x")),
	}}
	if err := signal.EncodeTo(&m, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(ours, theirs net.Conn){
		"closed here":  func(ours, _ net.Conn) { _ = ours.Close() },
		"closed there": func(_, theirs net.Conn) { _ = theirs.Close() },
		"out of time":  func(ours, _ net.Conn) { _ = ours.SetDeadline(time.Now()) },
	} {
		for length := range m.Len() {
			ours, theirs := net.Pipe()
			read := make(chan error, 1)
			go func() {
				_, err := dbus.DecodeMessage(&wholeMessages{Conn: ours})
				read <- err
			}()
			if _, err := theirs.Write(m.Bytes()[:length]); err != nil {
				t.Fatal(err)
			}
			end(ours, theirs)
			select {
			case err := <-read:
				if err == nil {
					t.Errorf("%s after %d bytes: a message", name, length)
				}
			case <-time.After(ceiling):
				t.Fatalf("%s after %d bytes: it reads on", name, length)
			}
			_, _ = ours.Close(), theirs.Close()
		}
	}
}

// What a master says of a message's length is not believed beyond a bound.
func TestAMessageThatIsTooLong(t *testing.T) {
	head := append([]byte{'l', 2, 0, 1}, binary.LittleEndian.AppendUint32(nil, 1<<31)...)
	head = append(head, make([]byte, 8)...)
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() { _, _ = theirs.Write(head) }()
	if _, err := dbus.DecodeMessage(&wholeMessages{Conn: ours}); err == nil || !strings.Contains(err.Error(), "a message of 2147483664 bytes") {
		t.Errorf("got %v", err)
	}
}
