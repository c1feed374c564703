// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/sdnotify"
)

func TestFields(t *testing.T) {
	tests := []struct {
		name   string
		fields []sdnotify.Field
		want   string
	}{
		{"stopping", []sdnotify.Field{sdnotify.Stopping()}, "STOPPING=1"},
		{"watchdog", []sdnotify.Field{sdnotify.Watchdog()}, "WATCHDOG=1"},
		{"restart reset", []sdnotify.Field{sdnotify.RestartReset()}, "RESTART_RESET=1"},
		{"extend", []sdnotify.Field{sdnotify.ExtendTimeout(30 * time.Second)}, "EXTEND_TIMEOUT_USEC=30000000"},
		{"extend rounds up", []sdnotify.Field{sdnotify.ExtendTimeout(1001)}, "EXTEND_TIMEOUT_USEC=2"},
		{"extend by less than nothing", []sdnotify.Field{sdnotify.ExtendTimeout(-time.Hour)}, "EXTEND_TIMEOUT_USEC=0"},
		{
			"state first, status last",
			[]sdnotify.Field{
				sdnotify.Status("gone"), sdnotify.Errno(unix.ENOMEM),
				sdnotify.ExitStatus(78), sdnotify.Stopping(),
			},
			"STOPPING=1\nERRNO=12\nEXIT_STATUS=78\nSTATUS=gone",
		},
		{"empty status", []sdnotify.Field{sdnotify.Status("")}, "STATUS="},
		{"newline", []sdnotify.Field{sdnotify.Status("a\nREADY=1\r\nb")}, "STATUS=a READY=1  b"},
		{"control", []sdnotify.Field{sdnotify.Status("a\x00b\x1b[1m\x7f\u0085\u2028c")}, "STATUS=a b [1m   c"},
		{"invalid UTF-8", []sdnotify.Field{sdnotify.Status("a\xffb\xed\xa0\x80")}, "STATUS=a\ufffdb\ufffd\ufffd\ufffd"},
		{"not characters", []sdnotify.Field{sdnotify.Status("a\ufffe\U0001ffff\ufdd0z")}, "STATUS=a\ufffd\ufffd\ufffdz"},
		{"other scripts stay", []sdnotify.Field{sdnotify.Status("grün 日本 🙂")}, "STATUS=grün 日本 🙂"},
	}
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	for _, test := range tests {
		if err := c.Send(test.fields...); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got, _ := r.read(); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestReloadingHasTheTime(t *testing.T) {
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	var before unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &before); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(sdnotify.Reloading(), sdnotify.Status("reading")); err != nil {
		t.Fatal(err)
	}
	datagram, _ := r.read()
	fields := assignments(datagram)
	usec, err := strconv.ParseInt(fields["MONOTONIC_USEC"], 10, 64)
	if min := before.Nano() / 1000; err != nil || usec < min || usec > min+int64(time.Minute/time.Microsecond) {
		t.Errorf("MONOTONIC_USEC=%s, want about %d", fields["MONOTONIC_USEC"], min)
	}
	if fields["RELOADING"] != "1" || fields["STATUS"] != "reading" {
		t.Errorf("got %q", datagram)
	}
}

func TestSendRefuses(t *testing.T) {
	tests := map[string][]sdnotify.Field{
		"nothing":             nil,
		"empty field":         {{}},
		"ready and stopping":  {sdnotify.Ready(), sdnotify.Stopping()},
		"ready and reloading": {sdnotify.Ready(), sdnotify.Status("x"), sdnotify.Reloading()},
		"stopping, reloading": {sdnotify.Watchdog(), sdnotify.Stopping(), sdnotify.Reloading()},
		"ready twice":         {sdnotify.Ready(), sdnotify.Ready()},
		"status twice":        {sdnotify.Status("a"), sdnotify.Status("b")},
	}
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	for name, fields := range tests {
		if err := c.Send(fields...); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got, _ := r.read(); got != "" {
			t.Errorf("%s: sent %q", name, got)
		}
	}
}

func TestSendLeavesItsArguments(t *testing.T) {
	path := socketPath(t)
	listen(t, path)
	fields := []sdnotify.Field{sdnotify.Status("x"), sdnotify.Ready()}
	if err := newClient(t, path).Send(fields...); err != nil {
		t.Fatal(err)
	}
	if fields[0] != sdnotify.Status("x") || fields[1] != sdnotify.Ready() {
		t.Errorf("got %v", fields)
	}
}

func TestLongStatus(t *testing.T) {
	path := socketPath(t)
	r, c := listen(t, path), newClient(t, path)
	for _, text := range []string{"x", "ü", "語", "🙂", "a🙂", "\xff"} {
		for _, shift := range []string{"", ".", "..", "..."} {
			status := shift + strings.Repeat(text, 5000)
			if err := c.Send(sdnotify.Status(status), sdnotify.Ready()); err != nil {
				t.Fatal(err)
			}
			got, _ := r.read()
			// A rune has at most four bytes: no more than three are left empty.
			if len(got) > 4095 || len(got) < 4092 || !utf8.ValidString(got) {
				t.Errorf("%q...: %d bytes, valid: %t", shift+text, len(got), utf8.ValidString(got))
			}
			if !strings.HasPrefix(got, "READY=1\nSTATUS="+shift) {
				t.Errorf("%q...: begins with %.20q", shift+text, got)
			}
		}
	}
}

// FuzzStatus sends any text beside other fields: the datagram must be one that
// systemd takes, and the others must come through whole.
func FuzzStatus(f *testing.F) {
	for _, text := range []string{
		"", "5/6 ready", "a\nREADY=1", "\x00", "\xff\xfe", "\ufffe", "\u2028", "\u009b",
		strings.Repeat("語", 2000), strings.Repeat("\xff", 4096), strings.Repeat("\n", 9000),
	} {
		f.Add(text, int64(len(text)))
	}
	path := socketPath(f)
	r, c := listen(f, path), newClient(f, path)
	f.Fuzz(func(t *testing.T, text string, d int64) {
		r.t = t
		extend := sdnotify.ExtendTimeout(time.Duration(d))
		if err := c.Send(sdnotify.Status(text), extend, sdnotify.Ready()); err != nil {
			t.Fatal(err)
		}
		datagram, _ := r.read()
		if len(datagram) >= 4096 || !utf8.ValidString(datagram) {
			t.Fatalf("%d bytes, valid: %t", len(datagram), utf8.ValidString(datagram))
		}
		head, status, found := strings.Cut(datagram, "\nSTATUS=")
		ready, usec, _ := strings.Cut(head, "\nEXTEND_TIMEOUT_USEC=")
		if n, err := strconv.ParseInt(usec, 10, 64); ready != "READY=1" || err != nil || n < 0 {
			t.Fatalf("fields before the status are %q", head)
		}
		checkStatus(t, text, status, len(datagram))
		if !found || strings.IndexFunc(status, unicode.IsControl) >= 0 {
			t.Fatalf("status %q", status)
		}
	})
}

// checkStatus compares rune by rune: what may stay has stayed, in its place, and
// only a full datagram ends early.
func checkStatus(t *testing.T, text, status string, size int) {
	got, want := []rune(status), []rune(text)
	if len(got) > len(want) || len(got) < len(want) && size < 4092 {
		t.Fatalf("%d characters of %d in %d bytes", len(got), len(want), size)
	}
	for i, r := range got {
		if r != want[i] && r != ' ' && r != utf8.RuneError {
			t.Fatalf("character %d is %q, was %q", i, r, want[i])
		}
		if r != want[i] && unicode.IsPrint(want[i]) {
			t.Fatalf("%q became %q", want[i], r)
		}
	}
}
