// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"bufio"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"
)

// authenticate is the server's side of D-Bus' SASL, of which it knows EXTERNAL:
// who the client is has been told by the kernel, and what the client says of that
// must agree.
//
//	client                         server
//	NUL, AUTH EXTERNAL hex(uid)    OK guid
//	(or AUTH EXTERNAL, then DATA)  (DATA)
//	NEGOTIATE_UNIX_FD              ERROR: no method takes a descriptor
//	BEGIN                          messages follow
//
// Some clients send all of their lines at once.
func authenticate(r *bufio.Reader, w io.Writer, uid uint32, guid string) error {
	if first, err := r.ReadByte(); err != nil || first != 0 {
		return errors.Join(errAuth, err)
	}
	known, waiting := false, false
	for range maxAuthLines {
		line, err := r.ReadSlice('\n') // a line that is longer than the buffer is an error
		if err != nil {
			return err
		}
		command, rest, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
		answer := "ERROR"
		switch {
		case command == "BEGIN" && known:
			return nil
		case command == "BEGIN":
			return errAuth
		case command == "AUTH" && rest == "EXTERNAL":
			answer, waiting = "DATA", true
		case command == "AUTH" && strings.HasPrefix(rest, "EXTERNAL "):
			known = isIdentity(strings.TrimPrefix(rest, "EXTERNAL "), uid)
			answer = accepted(known, guid)
		case command == "DATA" && waiting:
			known, waiting = rest == "" || isIdentity(rest, uid), false
			answer = accepted(known, guid)
		case command == "AUTH", command == "CANCEL", command == "DATA":
			answer = accepted(false, guid)
		}
		if _, err := io.WriteString(w, answer+"\r\n"); err != nil {
			return err
		}
	}
	return errAuth
}

var errAuth = errors.New("no authentication")

const maxAuthLines = 16

func accepted(known bool, guid string) string {
	if known {
		return "OK " + guid
	}
	return "REJECTED EXTERNAL"
}

// isIdentity reports whether a client claims to be who it is.
func isIdentity(claim string, uid uint32) bool {
	text, err := hex.DecodeString(claim)
	return err == nil && string(text) == strconv.FormatUint(uint64(uid), 10)
}
