// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// EntryField is a field of an entry in the journal. Its name is made of A-Z, 0-9
// and "_", begins with a letter and has at most 64 bytes.
type EntryField struct{ Name, Value string }

// Journal sends entries to one journal, in its own protocol. It is not safe for
// concurrent use with Close.
type Journal struct {
	fd int
	to unix.SockaddrUnix
}

// OpenJournal returns a journal by the directory of its sockets; see
// [JournalDir]. The journal need not run. The caller owns the result and closes
// it. It does not block.
func OpenJournal(dir string) (*Journal, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", os.NewSyscallError("socket", err))
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sndbuf) // a small one only means ErrFull earlier
	return &Journal{fd: fd, to: unix.SockaddrUnix{Name: filepath.Join(dir, "socket")}}, nil
}

// Close closes the socket.
func (j *Journal) Close() { _ = unix.Close(j.fd) } // nothing is buffered

// Send sends one entry. It does not block: ErrFull says that the journal does not
// read; any other error, ECONNREFUSED or ENOENT for example, that there is none
// just now. Nothing was sent then.
func (j *Journal) Send(fields ...EntryField) error {
	var b []byte
	for _, f := range fields {
		if !validFieldName(f.Name) {
			return fmt.Errorf("journal: %q is not the name of a field", f.Name)
		}
		b = appendField(b, f)
	}
	err := j.send(b, nil)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		err = j.sendMemfd(b)
	}
	if errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("journal: %w", ErrFull)
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (j *Journal) send(b, oob []byte) error {
	for {
		_, err := unix.SendmsgN(j.fd, b, oob, &j.to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("sendmsg", err)
		}
	}
}

// sendMemfd sends what no datagram can hold.
func (j *Journal) sendMemfd(b []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	file := os.NewFile(uintptr(fd), "journal-entry")
	defer func() { _ = file.Close() }() // the message holds its own
	if _, err := file.Write(b); err != nil {
		return err
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl F_ADD_SEALS", err)
	}
	return j.send(nil, unix.UnixRights(fd))
}

// appendField writes a value with newlines by its length, so that no value can
// add a field.
func appendField(b []byte, f EntryField) []byte {
	b = append(b, f.Name...)
	if !strings.Contains(f.Value, "\n") {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(f.Value)))
	}
	b = append(b, f.Value...)
	return append(b, '\n')
}

func validFieldName(name string) bool {
	if name == "" || len(name) > 64 || name[0] < 'A' || name[0] > 'Z' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
