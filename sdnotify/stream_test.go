// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

// journal is the directory of a journal that listens, with both of its sockets.
func journal(t *testing.T) (dir string, streams *net.UnixListener, entries *net.UnixConn) {
	t.Helper()
	dir = t.TempDir()
	streams, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "stdout"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	entries, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = streams.Close()
		_ = entries.Close()
	})
	return dir, streams, entries
}

func TestStream(t *testing.T) {
	dir, streams, _ := journal(t)
	fd, err := sdnotify.OpenStream(dir, "web.0", 6)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	conn, err := streams.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags %x, %v: a worker's output must block", flags, err)
	}
	id, err := sdnotify.StreamID(fd)
	if err != nil || !sdnotify.JournalStream(sdnotify.Environment{JournalStream: id}, fd) {
		t.Errorf("id %q, %v", id, err)
	}
	if got := sdnotify.JournalDir(fd); got != "/run/systemd/journal" && got != dir {
		t.Errorf("its journal is in %s", got)
	}
	if !sdnotify.StreamAlive(fd) {
		t.Error("a stream that was just opened is dead")
	}
	if _, err := unix.Write(fd, []byte("a line\n")); err != nil {
		t.Fatal(err)
	}
	want := "web.0\n\n6\n1\n0\n0\n0\na line\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	_ = conn.Close()
	if sdnotify.StreamAlive(fd) {
		t.Error("a stream that the journal has closed is alive")
	}
}

func TestStreamRefuses(t *testing.T) {
	dir, _, _ := journal(t)
	before := open(t)
	for _, identifier := range []string{"", "two\nlines", "nul\x00"} {
		if _, err := sdnotify.OpenStream(dir, identifier, 6); err == nil {
			t.Errorf("identifier %q", identifier)
		}
	}
	if _, err := sdnotify.OpenStream(t.TempDir(), "web.0", 6); !errors.Is(err, unix.ENOENT) {
		t.Errorf("without a journal: %v", err)
	}
	if after := open(t); after != before {
		t.Errorf("descriptors: got %s, want %s", after, before)
	}
}

// A journal that does not accept blocks nobody.
func TestStreamsOfAJournalThatIsStuck(t *testing.T) {
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "stdout")}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 2); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		stream, err := sdnotify.OpenStream(dir, "web.0", 6)
		if errors.Is(err, sdnotify.ErrFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(stream) }()
	}
	t.Error("its queue is never full")
}

func TestEntry(t *testing.T) {
	dir, _, entries := journal(t)
	j, err := sdnotify.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	value := "two\nlines"
	if err := j.Send(sdnotify.EntryField{Name: "MESSAGE", Value: "hello=1"}, sdnotify.EntryField{Name: "X", Value: value}); err != nil {
		t.Fatal(err)
	}
	want := "MESSAGE=hello=1\nX\n" + string(binary.LittleEndian.AppendUint64(nil, uint64(len(value)))) + value + "\n"
	buf := make([]byte, 1<<16)
	n, err := entries.Read(buf)
	if err != nil || string(buf[:n]) != want {
		t.Errorf("got %q, %v, want %q", buf[:n], err, want)
	}
	for _, name := range []string{"", "lower", "_PID", "1X", "A B", "A=B", "A\nB", strings.Repeat("X", 65)} {
		if err := j.Send(sdnotify.EntryField{Name: "MESSAGE", Value: "x"}, sdnotify.EntryField{Name: name, Value: "x"}); err == nil {
			t.Errorf("a field was named %q", name)
		}
	}
}

// What no datagram can hold comes in a sealed file.
func TestLargeEntry(t *testing.T) {
	dir, _, entries := journal(t)
	j, err := sdnotify.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	before := open(t)
	text := strings.Repeat("x", 20<<20)
	if err := j.Send(sdnotify.EntryField{Name: "MESSAGE", Value: text}); err != nil {
		t.Fatal(err)
	}
	if after := open(t); after != before {
		t.Errorf("descriptors: got %s, want %s", after, before)
	}
	oob := make([]byte, 64)
	n, oobn, _, _, err := entries.ReadMsgUnix(make([]byte, 16), oob)
	if err != nil || n != 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cmsgs) != 1 {
		t.Fatalf("%v, %v", cmsgs, err)
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "entry")
	defer file.Close()
	content := make([]byte, len(text)+64)
	n, _ = file.ReadAt(content, 0)
	if string(content[:n]) != "MESSAGE="+text+"\n" {
		t.Errorf("%d bytes in the file", n)
	}
	if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("seals %x, %v", seals, err)
	}
}

// A journal that is stopped or stuck is an error, and works again when it is
// back.
func TestEntriesOfAJournalThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	j, err := sdnotify.OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	line := sdnotify.EntryField{Name: "MESSAGE", Value: "x"}
	if err := j.Send(line); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no journal: %v", err)
	}
	address := &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"}
	first, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	full := false
	for range 10_000 {
		if err := j.Send(line); err != nil {
			if full = errors.Is(err, sdnotify.ErrFull); !full {
				t.Fatal(err)
			}
			break
		}
	}
	if !full {
		t.Error("its queue is never full")
	}
	_ = first.Close()
	if err := j.Send(line); err == nil {
		t.Error("sent to a journal that has ended")
	}
	_ = os.Remove(address.Name)
	second, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if err := j.Send(line); err != nil {
		t.Errorf("to the next journal: %v", err)
	}
}
