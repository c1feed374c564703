// SPDX-License-Identifier: AGPL-3.0-or-later

package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/policy"
)

// maxHead is how many bytes a request may have.
const maxHead = 8192

var errTooLong = fmt.Errorf("the head of a request must be at most %d bytes long", maxHead)

// request is what is asked for. Of its head only this matters here.
type request struct {
	path   string // without its query
	query  string
	accept string // all Accept fields
	noBody bool   // HEAD
}

// refusal is an answer to a request that cannot be served.
type refusal struct {
	status int
	text   string
}

// readHead reads up to the empty line that ends the head of a request. What
// follows is not wanted: a second request, or a body.
func readHead(r io.Reader) (head []byte, err error) {
	buf := make([]byte, 0, 1024)
	for {
		if len(buf) == cap(buf) {
			if cap(buf) >= maxHead {
				return buf, errTooLong
			}
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		// The end may lie across two reads.
		from := max(0, len(buf)-3)
		buf = buf[:len(buf)+n]
		if end := headEnd(buf[from:]); end >= 0 {
			return buf[:from+end], nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// headEnd is where the empty line ends, or -1. A line may end in a line feed
// alone (RFC 9112, 2.2).
func headEnd(text []byte) int {
	for i := 0; ; i++ {
		n := bytes.IndexByte(text[i:], '\n')
		if n < 0 {
			return -1
		}
		i += n
		switch rest := text[i+1:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 2
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 3
		}
	}
}

// parse reads a head that readHead has returned.
func parse(head []byte) (q request, no *refusal) {
	first, fields, _ := strings.Cut(string(head), "\n")
	parts := strings.Split(strings.TrimSuffix(first, "\r"), " ")
	if len(parts) != 3 || !isToken(parts[0]) || !isTarget(parts[1]) || !strings.HasPrefix(parts[2], "HTTP/") {
		return q, &refusal{400, "this is not a request of HTTP/1.1"}
	}
	method, version := parts[0], parts[2]
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return q, &refusal{505, "the version must be HTTP/1.1 or HTTP/1.0"}
	}
	q.path, q.query, _ = strings.Cut(parts[1], "?")
	q.noBody = method == "HEAD"
	hosts, err := q.fields(fields)
	switch {
	case err != nil:
		return q, &refusal{400, err.Error()}
	case hosts > 1, hosts == 0 && version == "HTTP/1.1": // RFC 9112, 3.2
		return q, &refusal{400, "a request must have one Host"}
	case method != "GET" && method != "HEAD":
		return q, &refusal{405, "the method must be GET or HEAD"}
	}
	return q, nil
}

// What /readyz can be asked for.
const (
	maxMin   = policy.MaxSlots
	readyUse = "/readyz takes worker=NAME, which may be repeated, and min=NUMBER"
)

// wants are what a query of /readyz asks for: of the workers that it names, else of those
// that the fleet needs.
func (q *request) wants(f *control.Status) (wants []control.Want, no *refusal) {
	values, err := url.ParseQuery(q.query)
	if err != nil {
		return nil, &refusal{400, fmt.Sprintf("%v; %s", err, readyUse)}
	}
	least := uint64(1)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch list := values[key]; {
		case key == "worker", key == "verbose": // by habit: the reason is always told
		case key != "min":
			return nil, &refusal{400, fmt.Sprintf("there is no %.64q; %s", key, readyUse)}
		case len(list) > 1:
			return nil, &refusal{400, "min can be given once"}
		default:
			if least, err = strconv.ParseUint(list[0], 10, 32); err != nil || least < 1 || least > maxMin {
				return nil, &refusal{400, fmt.Sprintf("min must be a number from 1 to %d, not %.64q", maxMin, list[0])}
			}
		}
	}
	for _, name := range values["worker"] {
		if why := control.NoWorker(f, name); why != "" {
			return nil, &refusal{404, why}
		}
		wants = append(wants, control.Want{Worker: name, Min: uint32(least)})
	}
	if wants == nil {
		wants = control.Wants(f, uint32(least))
	}
	return wants, nil
}

// fields reads header fields, of which two matter.
func (q *request) fields(text string) (hosts int, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) || strings.ContainsFunc(value, isControl) {
			return 0, errors.New("a header field must be NAME: VALUE")
		}
		switch strings.ToLower(name) {
		case "host":
			hosts++
		case "accept":
			q.accept += "," + value
		}
	}
	return hosts, nil
}

// isToken is the rule for methods and the names of fields (RFC 9110, 5.6.2).
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	})
}

func isTarget(s string) bool {
	return strings.HasPrefix(s, "/") && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// format is what the client accepts: OpenMetrics where it says so, unless it
// gives it the weight of 0.
func (q *request) format() Format {
	for part := range strings.SplitSeq(q.accept, ",") {
		name, parameters, _ := strings.Cut(part, ";")
		if !strings.EqualFold(strings.TrimSpace(name), "application/openmetrics-text") {
			continue
		}
		if known(parameters) {
			return OpenMetrics
		}
	}
	return Text
}

// known reports whether these parameters of OpenMetrics allow what is written here.
// Version 0.0.1 is what Prometheus called a draft that differs in nothing here.
func known(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(p, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "q":
			if q, err := strconv.ParseFloat(value, 64); err != nil || q <= 0 {
				return false
			}
		case "version":
			if value != "1.0.0" && value != "0.0.1" {
				return false
			}
		}
	}
	return true
}
