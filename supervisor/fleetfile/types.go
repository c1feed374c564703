// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import (
	"net/netip"
	"time"

	"github.com/decnet/prefork/supervisor/fleet"
)

// Fleet is a fleet file that passed every check. Defaults are filled in. It is
// read-only: workers may share the maps and lists that [defaults] gave them.
type Fleet struct {
	Name         string // from the file's name
	Path         string // the file, as it was named
	Description  string
	ReadyWhen    fleet.ReadyWhen
	TimeoutStart time.Duration // fleet.Forever: none
	Floor        *Floor        // nil if the file has no [floor]
	Sockets      []Socket      // in the order of the file
	Workers      []Worker      // in the order of the file
}

// Floor is the [floor] table.
type Floor struct {
	Python    string // a program name or a path; default "python3"
	Preload   []string
	Path      []string
	Setup     string // "module:callable" or ""
	AfterFork string // "module:callable" or ""
	Env       map[string]string
	User      string // "" keeps the master's user
	Threads   Guard
	FDs       Guard
	GCFreeze  bool
	Spares    int
}

// Guard is what to do with a floor that is not safe to fork.
type Guard string

// The values of floor.threads and floor.fds.
const (
	Refuse Guard = "refuse"
	Allow  Guard = "allow"
)

// SocketType is the type= of a [socket.*] table.
type SocketType string

// The socket types.
const (
	Stream    SocketType = "stream"
	Datagram  SocketType = "datagram"
	Seqpacket SocketType = "seqpacket"
)

// Socket is one [socket.NAME] table.
type Socket struct {
	Name    string
	Listen  []Address
	Type    SocketType
	Backlog int
	Mode    uint32 // of a Unix socket's file
	User    string // owner of a Unix socket's file; "" leaves it
	Group   string
}

// Address is one entry of listen=.
type Address struct {
	Text   string         // as written
	IP     netip.AddrPort // valid for IP sockets; a bare port has the address [::]
	V6Only bool           // the same port is listed for IPv4 too, so [::] must not take it
	Unix   string         // a path, or "@name" for an abstract socket; "" for IP sockets
}

// Limit is one limit_* key. Infinity is ^uint64(0).
type Limit struct {
	Resource int // RLIMIT_* number
	Name     string
	Soft     uint64
	Hard     uint64
}

// EnvironmentFile is one entry of environment_file=.
type EnvironmentFile struct {
	Path     string
	Optional bool // written with a leading "-": a missing file is not an error
}

// Worker is one [worker.NAME] table with [defaults] merged in.
type Worker struct {
	Name  string
	Count int

	// Exactly one of Entry and Exec is set.
	Entry  string // "module:callable"
	Args   []any  // string, int64, float64, bool, []any, map[string]any
	Kwargs map[string]any
	Exec   []string

	Sockets             []string // names of Fleet.Sockets
	Environment         map[string]string
	EnvironmentFiles    []EnvironmentFile
	WorkingDirectory    string // "" keeps the master's
	User                string
	Group               string
	SupplementaryGroups []string
	Umask               *uint32
	Nice                *int
	Limits              []Limit
	NoNewPrivileges     bool

	Policy fleet.Policy
}
