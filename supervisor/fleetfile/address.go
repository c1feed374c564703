// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxUnixPath is what fits into sun_path with its closing NUL, see unix(7).
const maxUnixPath = 107

// parseAddress reads one entry of listen=. If it is wrong it returns the rule
// and the remedy.
func parseAddress(text string) (a Address, rule, remedy string) {
	a.Text = text
	switch {
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "@"):
		a.Unix = text
		rule, remedy = checkUnix(text)
	case a.IsPort():
		// systemd.socket(5): a bare port is [::] for IPv6 and IPv4.
		port, err := parsePort(text)
		if err != nil {
			return a, "a port must be a number from 1 to 65535", `write "8080", for example`
		}
		a.IP = netip.AddrPortFrom(netip.IPv6Unspecified(), port)
	default:
		a.IP, rule, remedy = parseIP(text)
	}
	return a, rule, remedy
}

func checkUnix(path string) (rule, remedy string) {
	switch {
	case len(path) > maxUnixPath:
		return fmt.Sprintf("the path of a Unix socket must be at most %d bytes long, this has %d", maxUnixPath, len(path)),
			`write a shorter one, such as "/run/prefork/app.sock"`
	case strings.ContainsRune(path, 0):
		return "an address cannot hold a NUL byte", "remove it"
	case path == "@":
		return "an abstract socket must have a name", `write "@app", for example`
	case strings.HasSuffix(path, "/") && path[0] == '/':
		return "the path of a Unix socket must name a file", `write "/run/prefork/app.sock", for example`
	}
	return "", ""
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && n == 0 {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

func parseIP(text string) (ip netip.AddrPort, rule, remedy string) {
	colon := strings.LastIndexByte(text, ':')
	if colon < 0 {
		return ip, "must be IP:PORT, [IPv6]:PORT, PORT, /path or @name, not " + strconv.Quote(text), `write "0.0.0.0:8080", for example`
	}
	host := strings.TrimSuffix(strings.TrimPrefix(text[:colon], "["), "]")
	addr, err := netip.ParseAddr(host)
	switch {
	case Address{Text: text[1:]}.IsPort() && text[0] == ':':
		return ip, "a port alone, of any address, has no colon", `write "` + text[1:] + `", for example`
	case err != nil:
		return ip, "must name an IP address, not " + strconv.Quote(host), `write "127.0.0.1:8080" or "[::1]:8080", for example`
	case addr.Is4In6():
		return ip, "an IPv4 address must be written as one", fmt.Sprintf("write %q", addr.Unmap().String()+text[colon:])
	case addr.Is6() != strings.HasPrefix(text, "["), addr.Is6() != strings.HasSuffix(text[:colon], "]"):
		return ip, "an IPv6 address, and no other, must stand in brackets", `write "[::1]:8080" or "127.0.0.1:8080", for example`
	}
	port, err := parsePort(text[colon+1:])
	if err != nil {
		return ip, "a port must be a number from 1 to 65535", `write "` + text[:colon] + `:8080", for example`
	}
	return netip.AddrPortFrom(addr, port), "", ""
}

// IsPort reports whether the address is a port alone: any address of this machine,
// IPv6 and IPv4, or IPv4 where the kernel has no other (systemd.socket(5)).
func (a Address) IsPort() bool { return a.Text != "" && strings.Trim(a.Text, digits) == "" }

// key names what the address occupies: two sockets cannot have the same one.
// A path is a file, whatever the type of the socket.
func (a Address) key(t SocketType) string {
	if a.IP.IsValid() {
		return string(t) + " " + a.IP.String()
	}
	if a.Unix[0] == '@' {
		return string(t) + " " + a.Unix
	}
	return filepath.Clean(a.Unix)
}

// port names what an IPv4 address and [::] would both want.
func (a Address) port(t SocketType) string {
	return string(t) + " " + strconv.Itoa(int(a.IP.Port()))
}
