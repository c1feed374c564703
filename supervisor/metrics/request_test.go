// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// requests has the status of each, or 0 if it is fine.
var requests = []struct {
	text   string
	status int
	want   request
}{
	{"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 0, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.0\r\n\r\n", 0, request{path: "/metrics"}},
	{"GET /healthz HTTP/1.0\n\n", 0, request{path: "/healthz"}},
	{"HEAD /readyz?verbose HTTP/1.1\r\nhOST:\r\nAccept: a\r\nx-y: \xff\r\naccept:b\r\n\r\n", 0, request{path: "/readyz", query: "verbose", accept: ", a,b", noBody: true}},

	{"GET /readyz?worker=web&min=2 HTTP/1.1\r\nHost: a\r\n\r\n", 0, request{path: "/readyz", query: "worker=web&min=2"}},

	{"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", 405, request{path: "/metrics"}},
	{"get /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", 400, request{path: "/metrics"}},
	{"GET /metrics HTTP/2.0\r\n\r\n", 505, request{}},
	{"GET /metrics HTTP/1.10\r\n\r\n", 505, request{}},
	{"GET /metrics\r\n\r\n", 400, request{}},
	{"GET  /metrics HTTP/1.1\r\n\r\n", 400, request{}},
	{"GET metrics HTTP/1.1\r\n\r\n", 400, request{}},
	{"GET http://a/metrics HTTP/1.1\r\n\r\n", 400, request{}},
	{"PRI * HTTP/2.0\r\n\r\n", 400, request{}},
	{"GET /a\tb HTTP/1.1\r\n\r\n", 400, request{}},
	{" GET /metrics HTTP/1.1\r\n\r\n", 400, request{}},
	{"\r\n\r\n", 400, request{}},
	{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400, request{}},
	{strings.Repeat("\x00", 100) + "\n\n", 400, request{}},
}

func TestRequests(t *testing.T) {
	for _, c := range requests {
		// What follows the head is not looked at, and neither is how it comes in.
		for _, r := range []io.Reader{
			strings.NewReader(c.text + "GET /second HTTP/1.1\r\n\r\n"),
			iotest.OneByteReader(strings.NewReader(c.text)),
		} {
			head, err := readHead(r)
			if err != nil || string(head) != c.text {
				t.Errorf("head of %q: got %q, %v", c.text, head, err)
			}
		}
		got, no := parse([]byte(c.text))
		switch {
		case no == nil && c.status == 0 && got == c.want:
		case no != nil && no.status == c.status && got.path == c.want.path:
		default:
			t.Errorf("%q: got %+v, %v", c.text, got, no)
		}
	}
}

func TestHeadIsBounded(t *testing.T) {
	fits := strings.Repeat("a", maxHead-2) + "\n\n"
	if head, err := readHead(strings.NewReader(fits)); err != nil || len(head) != maxHead {
		t.Errorf("%d bytes: %v", len(head), err)
	}
	endless := strings.NewReader(strings.Repeat("a", 1<<20))
	if _, err := readHead(endless); !errors.Is(err, errTooLong) || endless.Len() < 1<<20-maxHead {
		t.Errorf("got %v, with %d bytes left", err, endless.Len())
	}
	if _, err := readHead(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\n")); !errors.Is(err, io.EOF) {
		t.Errorf("no end: %v", err)
	}
}

func TestFormatIsWhatTheClientAccepts(t *testing.T) {
	for accept, want := range map[string]Format{
		"":                             Text,
		"*/*":                          Text,
		"text/plain;version=0.0.4":     Text,
		"application/openmetrics-text": OpenMetrics,
		"application/openmetrics-text; version=0.0.1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1":                                                  OpenMetrics,
		"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1": OpenMetrics,
		"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;q=0.4":                                                OpenMetrics,
		`text/html, Application/OpenMetrics-Text ; Version="1.0.0"`:                                                                             OpenMetrics,
		"application/openmetrics-text;q=0":         Text,
		"application/openmetrics-text;q=x":         Text,
		"application/openmetrics-text;version=2":   Text,
		"application/openmetrics-text-2":           Text,
		"application/vnd.google.protobuf;q=0.9,,;": Text,
	} {
		if got := (&request{accept: accept}).format(); got != want {
			t.Errorf("%s: got %v", accept, got)
		}
	}
}

// FuzzRequest: whatever comes is refused, or is a path; and the head of a request
// is found alike, however it comes in.
func FuzzRequest(f *testing.F) {
	for _, c := range requests {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		head, err := readHead(strings.NewReader(string(text)))
		again, errAgain := readHead(iotest.OneByteReader(strings.NewReader(string(text))))
		if string(head) != string(again) || (err == nil) != (errAgain == nil) || len(head) > maxHead {
			t.Fatalf("%q, %v and %q, %v", head, err, again, errAgain)
		}
		q, no := parse(text)
		q.format()
		switch {
		case no != nil:
			if reasons[no.status] == "" || no.text == "" {
				t.Errorf("refused with %+v", no)
			}
		case !strings.HasPrefix(q.path, "/"), strings.ContainsAny(q.path, "? \r\n"):
			t.Errorf("path %q", q.path)
		default:
			if wants, no := q.wants(edge()); no == nil && len(wants) == 0 || no != nil && (reasons[no.status] == "" || no.text == "") {
				t.Errorf("query %q: %v, %+v", q.query, wants, no)
			}
		}
	})
}
