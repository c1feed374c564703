// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// fake is a fleet that a test changes.
type fake struct {
	mu    sync.Mutex
	fleet *control.Status
	err   error
	hold  chan struct{} // if not nil, nobody is answered before it is closed
	asked int
	idle  int // how often the last client had gone
}

func (b *fake) Idle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle++
}

func (b *fake) Look() (*control.Status, error) {
	b.mu.Lock()
	hold := b.hold
	b.asked++
	b.mu.Unlock()
	if hold != nil {
		<-hold
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fleet, b.err
}

func (b *fake) Sample() (*Sample, error) {
	f, err := b.Look()
	return &Sample{Fleet: f, Spawns: sample().Spawns}, err
}

func (b *fake) set(f *control.Status, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fleet, b.err = f, err
}

// serveTest serves a fleet for the time of a test, which leaves nothing behind.
func serveTest(t *testing.T, b *fake) (address string, s *Server) {
	t.Helper()
	before := runtime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = Serve(l, b)
	t.Cleanup(func() {
		s.Close()
		if len(s.clients) != 0 {
			t.Errorf("%d clients are left", len(s.clients))
		}
		testutil.Eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	})
	return l.Addr().String(), s
}

// TestReadinessByWorker: a worker that nobody needs does not keep a dead one ready, and who
// asks for more is told what is missing.
func TestReadinessByWorker(t *testing.T) {
	b := &fake{fleet: edge()}
	address, _ := serveTest(t, b)
	for query, c := range map[string]struct {
		status int
		text   string
	}{
		"":                                 {200, "2/3 ready\n"},
		"?worker=web":                      {200, "2/3 ready\n"},
		"?worker=web&min=2":                {200, "2/3 ready\n"},
		"?min=3":                           {503, "web: 2 of 2 ready, needs 3; 2/3 ready\n"},
		"?worker=sniffer":                  {503, "sniffer: 0 of 1 ready, needs 1; 2/3 ready\n"},
		"?worker=web&worker=sniffer&min=1": {503, "sniffer: 0 of 1 ready, needs 1; 2/3 ready\n"},
		"?worker=wbe":                      {404, "there is no worker \"wbe\"; the fleet has web, sniffer, io\n"},
		"?worker=":                         {404, "there is no worker \"\"; the fleet has web, sniffer, io\n"},
		"?worker=%1b[2J":                   {404, "there is no worker \"\\x1b[2J\"; the fleet has web, sniffer, io\n"},
		"?worker=web&min=0":                {400, "min must be a number from 1 to 10000, not \"0\"\n"},
		"?worker=web&min=-1":               {400, "min must be a number from 1 to 10000, not \"-1\"\n"},
		"?min=99999999999":                 {400, "min must be a number from 1 to 10000, not \"99999999999\"\n"},
		"?min=1&min=2":                     {400, "min can be given once\n"},
		"?wroker=web":                      {400, "there is no \"wroker\"; /readyz takes worker=NAME, which may be repeated, and min=NUMBER\n"},
		"?worker=%zz":                      {400, "invalid URL escape \"%zz\"; /readyz takes worker=NAME, which may be repeated, and min=NUMBER\n"},
		"?worker=web;min=2":                {400, "invalid semicolon separator in query; /readyz takes worker=NAME, which may be repeated, and min=NUMBER\n"},
		"?verbose":                         {200, "2/3 ready\n"},
	} {
		want(t, address, "/readyz"+query, c.status, c.text)
	}
	dead := edge()
	dead.Workers[0].Ready, dead.StatusText = 0, "1/3 ready"
	b.set(dead, nil)
	want(t, address, "/readyz", 503, "web: 0 of 2 ready, needs 1; 1/3 ready\n")
	want(t, address, "/readyz?worker=io", 200, "1/3 ready\n")
}

// get is one probe, as an orchestrator makes it.
func get(t *testing.T, address, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := http.Client{Timeout: testutil.Patience, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func want(t *testing.T, address, path string, status int, text string) {
	t.Helper()
	resp, body := get(t, address, path)
	if resp.StatusCode != status || body != text || resp.ContentLength != int64(len(text)) || !resp.Close {
		t.Errorf("%s: got %d, %q, want %d, %q (%+v)", path, resp.StatusCode, body, status, text, resp)
	}
}

func TestProbes(t *testing.T) {
	b := &fake{fleet: edge()}
	address, _ := serveTest(t, b)
	want(t, address, "/healthz", 200, "ok\n")
	want(t, address, "/readyz?verbose=1", 200, "2/3 ready\n")
	want(t, address, "/", 404, "there are /metrics, /healthz and /readyz\n")
	want(t, address, "/metrics/", 404, "there are /metrics, /healthz and /readyz\n")

	stopping := edge()
	stopping.ActiveState, stopping.StatusText = "deactivating", "stopping: 3 processes\nleft\x1b"
	b.set(stopping, nil)
	want(t, address, "/healthz", 200, "ok\n")
	want(t, address, "/readyz", 503, "stopping: 3 processes left \n")

	b.set(nil, errors.New("the master is stuck"))
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		want(t, address, path, 503, "the master is stuck\n")
	}
}

func TestMetricsInBothFormats(t *testing.T) {
	address, _ := serveTest(t, &fake{fleet: edge()})
	for accept, format := range map[string]Format{"application/openmetrics-text;version=1.0.0": OpenMetrics, "*/*": Text} {
		resp, body := get(t, address, "/metrics", "Accept", accept)
		var text strings.Builder
		if err := Write(&text, sample(), format); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != format.contentType() || body != text.String() {
			t.Errorf("%s: got %d, %v\n%s", accept, resp.StatusCode, resp.Header, body)
		}
	}
}

// speak sends text and returns everything that comes until the server hangs up.
func speak(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	_ = conn.SetDeadline(time.Now().Add(testutil.Patience))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Errorf("after %.40q: %v", text, err)
	}
	return string(answer)
}

func TestHostileRequests(t *testing.T) {
	address, _ := serveTest(t, &fake{fleet: edge()})
	for _, c := range []struct{ text, status, holds string }{
		{"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", "Content-Length: 3\r\nConnection: close\r\n\r\n"},
		{"DELETE /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "405 Method Not Allowed", "\r\nAllow: GET, HEAD\r\n\r\nthe method"},
		{"GET / HTTP/3\r\n\r\n", "505 HTTP Version Not Supported", ""},
		{"\x16\x03\x01\x00\n\n", "400 Bad Request", ""},
		{"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n", "431 Request Header Fields Too Large", ""},
		// The rest of what was sent does not keep the answer from arriving.
		{strings.Repeat("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 100), "200 OK", "\r\n\r\nok\n"},
		{"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + strings.Repeat("x", 50000), "405 Method Not Allowed", ""},
	} {
		got := speak(t, address, c.text)
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+"\r\n") || !strings.Contains(got, c.holds) || strings.Count(got, "Connection: close") != 1 {
			t.Errorf("%.40q: got %q", c.text, got)
		}
	}
	if got := speak(t, address, "HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasSuffix(got, "\r\n\r\n") {
		t.Errorf("HEAD has a body: %q", got)
	}
}

// TestSlowRequestEnds: a request that trickles in has a deadline as a whole.
func TestSlowRequestEnds(t *testing.T) {
	address, _ := serveTest(t, &fake{fleet: edge()})
	began := time.Now() // the server's clock may start before it has said so
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = conn.SetReadDeadline(time.Now().Add(testutil.Patience))
		_, _ = conn.Read(make([]byte, 1)) // it is never answered
	}()
	_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\n")
	for {
		select {
		case <-ended:
			if took := time.Since(began); took < readTimeout || took > testutil.Patience/2 {
				t.Errorf("it ended after %s", took)
			}
			return
		case <-time.After(readTimeout / 20):
			_, _ = io.WriteString(conn, "X: y\r\n")
		}
	}
}

// TestSlowReaderEnds: who does not read its answer is hung up on.
func TestSlowReaderEnds(t *testing.T) {
	large := edge()
	large.StatusText = strings.Repeat("a", 32<<20)
	large.ActiveState = "deactivating"
	address, s := serveTest(t, &fake{fleet: large})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	_, _ = io.WriteString(conn, "GET /readyz HTTP/1.0\r\n\r\n")
	testutil.Eventually(t, "it came", func() bool { return s.count() == 1 })
	testutil.Eventually(t, "it was hung up on", func() bool { return s.count() == 0 })
}

func (s *Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.clients)
}

// TestIdleConnectionsKeepNobodyOut: a thousand that say nothing, or half of a
// request, and the next probe is served at once, again and again.
func TestIdleConnectionsKeepNobodyOut(t *testing.T) {
	address, s := serveTest(t, &fake{fleet: edge()})
	for i := range 1000 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if i%2 == 1 {
			_, _ = io.WriteString(conn, "GET /metrics HTTP/1.1\r\n") // it may have had to make room
		}
		if i%100 != 99 {
			continue
		}
		began := time.Now()
		want(t, address, "/healthz", 200, "ok\n")
		if took := time.Since(began); took > readTimeout/2 {
			t.Errorf("with %d idle connections, a probe took %s", i+1, took)
		}
	}
	if n := s.count(); n > maxClients {
		t.Errorf("%d are served at once", n)
	}
}

// TestWhoAsksKeepsItsPlace: whoever only connects makes room for others before
// one that waits for its answer does.
func TestWhoAsksKeepsItsPlace(t *testing.T) {
	b := &fake{fleet: edge(), hold: make(chan struct{})}
	address, s := serveTest(t, b)
	answered := make(chan string)
	go func() { answered <- speak(t, address, "GET /healthz HTTP/1.0\r\n\r\n") }()
	testutil.Eventually(t, "it asks", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.clients, func(c *client) bool { return c.asks })
	})
	for range 5 * maxClients {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a test's
	}
	testutil.Eventually(t, "all places are taken", func() bool { return s.count() == maxClients })
	close(b.hold)
	if got := <-answered; !strings.HasSuffix(got, "\r\n\r\nok\n") {
		t.Errorf("got %q", got)
	}
}

// TestOneSampleAtATime: to measure has a price, and clients cannot multiply it.
func TestOneSampleAtATime(t *testing.T) {
	b := &fake{fleet: edge(), hold: make(chan struct{})}
	address, s := serveTest(t, b)
	answers := make(chan string)
	for range 5 {
		go func() { answers <- speak(t, address, "GET /metrics HTTP/1.0\r\n\r\n") }()
	}
	asking := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.clients {
			if c.asks {
				n++
			}
		}
		return n
	}
	testutil.Eventually(t, "all ask", func() bool { return asking() == 5 })
	b.mu.Lock()
	if b.asked > 1 {
		t.Errorf("%d samples are taken at once", b.asked)
	}
	b.mu.Unlock()
	close(b.hold)
	for range 5 {
		if got := <-answers; !strings.Contains(got, "\nprefork_fleet_ready 1\n") {
			t.Errorf("got %q", got)
		}
	}
}

func TestClosedServerAnswersNobody(t *testing.T) {
	b := &fake{fleet: edge()}
	address, s := serveTest(t, b)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's
	testutil.Eventually(t, "it came", func() bool { return s.count() == 1 })
	s.Close()
	_ = conn.SetReadDeadline(time.Now().Add(testutil.Patience))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a client is served on")
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("the socket listens on")
	}
}

// TestLastClientIsTold: the fleet hears when nobody is left who looks.
func TestLastClientIsTold(t *testing.T) {
	b := &fake{fleet: sample().Fleet}
	address, _ := serveTest(t, b)
	if answer, _ := get(t, address, "/healthz"); answer.StatusCode != 200 {
		t.Fatal(answer.Status)
	}
	for end := time.Now().Add(testutil.Patience); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		idle := b.idle
		b.mu.Unlock()
		if idle == 1 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("told %d times", idle)
		}
	}
}
