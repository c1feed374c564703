// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// The names of the messages; doc.go draws when each is sent.
const (
	hello  = "hello"
	goName = "go"
	failed = "failed"
	memfd  = "memfd"
)

// MaxText is the size in bytes of the longest text that is shown, and maxMessage
// that of the longest message of a process: the zygote cuts its texts at
// InlineMax.
const (
	MaxText    = 512
	maxMessage = InlineMax + 256
)

// MaxFDs is how many descriptors one message can carry (unix(7), SCM_RIGHTS).
const MaxFDs = 253

// Message is what a process says at its gate: Hello or Failed.
type Message any

// The messages.
type (
	// Hello is the introduction of the process that was made for request ID.
	// PID and UID are the sender's, from the kernel.
	Hello struct {
		ID  uint64
		PID int
		UID int
	}

	// Failed is why a process cannot become what it was told. It is display
	// text: one line of valid UTF-8.
	Failed struct{ Text string }
)

// Send tells the process at the other end of gate what to become. The
// descriptors stay the caller's: one if o.Stdout is set, one if o.Stderr is, then one
// for each of o.Listen, then one for each of o.Stored, then one if o.Tasks is set. It
// does not block.
func Send(gate int, o *Orders, fds ...int) error {
	fields := o.Encode()
	msg := append([]byte(goName+"\x00"), fields...)
	if len(msg) > InlineMax {
		fd, err := linux.Memfd("prefork-orders", fields)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }() // the message holds its own
		msg = []byte(goName + "\x00" + memfd)
		fds = append([]int{fd}, fds...)
	}
	if len(fds) > MaxFDs {
		return fmt.Errorf("%d descriptors are more than one message can carry", len(fds))
	}
	return linux.Send(gate, msg, fds...)
}

// errNotAMessage is what a process gets for nonsense: it is not trusted, so it
// is ignored.
var errNotAMessage = errors.New("gate: not a message")

// Receive reads what the process at the other end says. It does not block:
// EAGAIN means that there is nothing yet, io.EOF that the process has left the
// gate, [linux.ErrRights] that it pushes descriptors, which no process does that
// keeps to the protocol. Any other error is about one message, which has been
// dropped.
func Receive(gate int) (Message, error) {
	var buf [maxMessage]byte
	n, from, err := linux.Receive(gate, buf[:])
	if err != nil {
		return nil, err
	}
	return parse(buf[:n], from)
}

func parse(b []byte, from unix.Ucred) (Message, error) {
	name, rest, _ := bytes.Cut(b, []byte{0})
	switch string(name) {
	case hello:
		id, err := strconv.ParseUint(string(rest), 10, 64)
		if err != nil || from.Pid == 0 {
			return nil, errNotAMessage
		}
		return Hello{ID: id, PID: int(from.Pid), UID: int(from.Uid)}, nil
	case failed:
		_, said, _ := bytes.Cut(rest, []byte{0})
		return Failed{Text: text.OneLine(string(said), MaxText)}, nil
	default:
		return nil, errNotAMessage
	}
}

// receiveOrders blocks until the master says go. io.EOF means that it never
// will.
func receiveOrders(gate int) (*Orders, []int, error) {
	buf := make([]byte, InlineMax)
	n, fds, err := linux.ReceiveFDs(gate, buf, MaxFDs)
	if err != nil {
		return nil, nil, err
	}
	name, fields, _ := bytes.Cut(buf[:n], []byte{0})
	if string(name) != goName {
		return nil, nil, fmt.Errorf("gate: %q instead of go", name)
	}
	if string(fields) == memfd {
		if len(fds) == 0 {
			return nil, nil, errors.New("gate: go memfd without a descriptor")
		}
		fields, err = readAll(fds[0])
		_ = unix.Close(fds[0]) // read only
		if err != nil {
			return nil, nil, err
		}
		fds = fds[1:]
	}
	o, err := Decode(fields)
	return o, fds, err
}

func readAll(fd int) ([]byte, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("fstat: %v", err)
	}
	buf := make([]byte, stat.Size)
	for done := 0; done < len(buf); {
		n, err := unix.Pread(fd, buf[done:], int64(done))
		if err != nil {
			return nil, fmt.Errorf("pread: %v", err)
		}
		if n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		done += n
	}
	return buf, nil
}
