// SPDX-License-Identifier: AGPL-3.0-or-later

package zygote

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestFloorIsEncodedFieldByField(t *testing.T) {
	f := LoadRequest{
		Fleet: "edge", Generation: 3, Title: "prefork: floor [edge] gen 3",
		Path: []string{"/a", "/b"}, Preload: []string{"x", "y.z"}, Setup: "x:load", Warm: "x:warm",
		AllowThreads: true, Entries: []string{"x:run"},
	}
	own := []string{"repack=1", "immortal=1", "gc_freeze=1", "has_tasks=1", "capabilities=1", "tasks=" + Tasks(), "module=" + Module}
	want := []string{
		"floor", "fleet=edge", "generation=3", "title=prefork: floor [edge] gen 3", "path=/a", "path=/b",
		"preload=x", "preload=y.z", "setup=x:load", "warm=x:warm", "threads=allow", "fds=refuse",
		"entry=x:run", "prctl=0",
	}
	if got := strings.Split(string(f.Encode()), "\x00"); !slices.Equal(got, want) {
		t.Errorf("another zygote is told %q, want %q", got, want)
	}
	f.Python = &Python{Repack: true, Immortal: true, GCFreeze: true, Tasks: true, Capable: true}
	if got := strings.Split(string(f.Encode()), "\x00"); !slices.Equal(got, append(want, own...)) {
		t.Errorf("got %q, want %q", got, append(want, own...))
	}
}

func TestNulCannotAddField(t *testing.T) {
	got := string(LoadRequest{Fleet: "a\x00threads=allow"}.Encode())
	if strings.Contains(got, "\x00threads=allow") || !strings.Contains(got, "\x00fleet=athreads=allow\x00") {
		t.Errorf("got %q", got)
	}
}

func TestForkIsEncoded(t *testing.T) {
	if got, want := string(EncodeFork(18446744073709551615)), "fork\x0018446744073709551615"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("ä", 400)
	for _, test := range []struct {
		wire string
		want Message
		ok   bool
	}{
		{"loaded\x001", Message{Kind: Loaded, Protocol: 1, Forks: 1}, true},
		{"loaded\x001\x0016", Message{Kind: Loaded, Protocol: 1, Forks: 16}, true},
		{"loaded\x001\x000", Message{}, false},
		{"loaded\x001\x00many", Message{}, false},
		{"loaded\x001\x0016\x0063", Message{Kind: Loaded, Protocol: 1, Forks: 16, Stacks: 63}, true},
		{"loaded\x001\x0016\x000", Message{Kind: Loaded, Protocol: 1, Forks: 16}, true},
		{"loaded\x001\x0016\x009", Message{}, false},
		{"loaded\x001\x0016\x0065", Message{}, false},
		{"loaded\x001\x0016\x0063\x001", Message{}, false},
		{"loaded", Message{}, false},
		{"loaded\x00one", Message{}, false},
		{"progress\x00importing numpy (1 of 3)", Message{Kind: Progress, Text: "importing numpy (1 of 3)"}, true},
		{"progress", Message{}, false},
		{"broken\x00a\nb\x1b[31m\xff\x00c ", Message{Kind: Broken, Text: "a b [31m\ufffd c"}, true},
		{"broken\x00", Message{Kind: Broken}, true},
		{"broken\x00" + long, Message{Kind: Broken, Text: long[:512]}, true},
		{"broken\x00x" + long, Message{Kind: Broken, Text: "x" + long[:510]}, true},
		{"refused\x007\x0011\x00fork: no", Message{Kind: Refused, ID: 7, Errno: syscall.EAGAIN, Text: "fork: no"}, true},
		{"refused\x007\x0011", Message{}, false},
		{"refused\x00-7\x0011\x00no", Message{}, false},
		{"refused\x007\x004096\x00no", Message{}, false},
		{"", Message{}, false},
		{"hello\x001", Message{}, false},
	} {
		got, err := Decode([]byte(test.wire))
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("Decode(%q) = %+v, %v, want %+v, ok %v", test.wire, got, err, test.want, test.ok)
		}
	}
}

// The floor is user code, and may write anything into the socket.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"loaded\x001", "progress\x00a", "broken\x00\xff\u202e\n", "refused\x001\x0011\x00fork: x", "refused\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if m != (Message{}) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Errorf("Decode(%q) = %+v, %q", b, m, err)
			}
			return
		}
		if len(m.Text) > 512 || !utf8.ValidString(m.Text) || strings.ContainsFunc(m.Text, notPrintable) {
			t.Errorf("Decode(%q): text %q is not fit to show", b, m.Text)
		}
		again, err := Decode(wire(m))
		if err != nil || again != m {
			t.Errorf("%+v reads as %+v, %v the second time", m, again, err)
		}
	})
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }

// wire writes a message as the zygote does.
func wire(m Message) []byte {
	switch m.Kind {
	case Loaded:
		return fmt.Appendf(nil, "%s\x00%d", m.Kind, m.Protocol)
	case Refused:
		return fmt.Appendf(nil, "%s\x00%d\x00%d\x00%s", m.Kind, m.ID, int(m.Errno), m.Text)
	default:
		return []byte(string(m.Kind) + "\x00" + m.Text)
	}
}
