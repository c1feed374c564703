// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify_test

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/decnet/prefork/sdnotify"
)

func TestParseMessage(t *testing.T) {
	type message = sdnotify.Message
	for text, want := range map[string]message{
		"READY=1":                               {Ready: true},
		"READY=1\n\x00":                         {Ready: true},
		"READY=0\nREADY=yes\nready=1":           {},
		"RELOADING=1\nMONOTONIC_USEC=7":         {Reloading: true},
		"RELOADING=1\nREADY=1":                  {Ready: true},
		"READY=1\nSTOPPING=1\nRELOADING=1":      {Stopping: true},
		"STATUS=at work, 100 %":                 {HasStatus: true, Status: "at work, 100 %"},
		"STATUS=":                               {HasStatus: true},
		"STATUS=a\x1b[31mb\tc":                  {HasStatus: true, Status: "a [31mb c"},
		"STATUS=\xff":                           {},
		"STATUS=" + strings.Repeat("ü", 300):    {HasStatus: true, Status: strings.Repeat("ü", 256)},
		"ERRNO=2\nBUSERROR=org.example\xff.Bad": {Errno: 2, BusError: "org.example.Bad"},
		"ERRNO=0\nERRNO=-1\nERRNO=99999999999":  {},
		"EXIT_STATUS=255":                       {ExitStatus: 255},
		"EXIT_STATUS=256":                       {},
		"WATCHDOG=1":                            {Watchdog: true},
		"WATCHDOG=trigger":                      {Trigger: true},
		"WATCHDOG_USEC=2000000":                 {WatchdogInterval: 2 * time.Second},
		"WATCHDOG_USEC=0\nWATCHDOG_USEC=-1":     {},
		"WATCHDOG_USEC=18446744073709551615":    {},
		"EXTEND_TIMEOUT_USEC=1":                 {Extend: time.Microsecond},
		"BARRIER=1":                             {Barrier: true},
		"FDSTORE=1\nFDNAME=conn":                {Store: true, FDName: "conn"},
		"FDSTORE=1\nFDNAME=a:b":                 {Store: true},
		"FDSTORE=1\nFDNAME=" + "x\x7f":          {Store: true},
		"FDNAME=" + strings.Repeat("x", 256):    {},
		"FDSTOREREMOVE=1\nFDNAME=" + "a b":      {StoreRemove: true, FDName: "a b"},
		"FDSTORE=1\nFDPOLL=0":                   {Store: true, FDPoll: false},
		"MAINPID=1\nno assignment\n=\n\n":       {},
		"X_A=1\nX_B=\x1b[2J\nX_C=\xff\nX_A=":    {Private: []sdnotify.Assignment{{"X_A", "1"}, {"X_B", "[2J"}, {"X_A", ""}}},
	} {
		if want.FDName == "" {
			want.FDName = "stored"
		}
		want.FDPoll = !strings.Contains(text, "FDPOLL=0")
		if got, err := sdnotify.ParseMessage([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "empty", "\x00": "empty", "READY=1\x00X": "NUL", "\x00\x00": "NUL", strings.Repeat("X", 4097): "longer",
	} {
		if got, err := sdnotify.ParseMessage([]byte(text)); err == nil || !strings.Contains(err.Error(), want) || !reflect.DeepEqual(got, message{}) {
			t.Errorf("%.20q: got %+v, %v, want %q", text, got, err, want)
		}
	}
}

// FuzzParseMessage: nothing that a worker sends is more than one printable line.
func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=well\nFDNAME=x\nERRNO=2\nBUSERROR=x"))
	f.Add([]byte("STOPPING=1\nWATCHDOG_USEC=1\nEXTEND_TIMEOUT_USEC=2\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := sdnotify.ParseMessage(b)
		if err != nil {
			return
		}
		for _, text := range []string{m.Status, m.BusError} {
			if len(text) > 512 || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q has the text %q", b, text)
			}
		}
		if m.Ready && m.Stopping || m.Ready && m.Reloading || m.Reloading && m.Stopping {
			t.Errorf("%q is %+v", b, m)
		}
		if m.FDName == "" || len(m.FDName) > 255 || strings.Contains(m.FDName, ":") || m.WatchdogInterval < 0 || m.Extend < 0 {
			t.Errorf("%q is %+v", b, m)
		}
	})
}
