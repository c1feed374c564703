// SPDX-License-Identifier: AGPL-3.0-or-later

package units

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

// salvage reads start and the sockets of a broken fleet file, and reports whether
// those are all that it has. A daemon-reload, which any package may cause, can
// meet a file that is just being edited. If it made a socket unit vanish, systemd
// would close the socket, and would not open it again when the unit is back.
func salvage(f fleetfile.Found) (file *fleetfile.File, all bool) {
	file = &fleetfile.File{Name: f.Name, Path: f.Path, Start: fleetfile.StartOf(f.Path)}
	tables, all := socketTables(f.Path)
	good := make(map[string]any)
	for name, table := range tables {
		if _, err := parseSockets(f, map[string]any{name: table}); err == nil {
			good[name] = table
		}
	}
	alone, err := parseSockets(f, good)
	if err != nil {
		return file, false
	}
	file.Sockets = alone.Sockets
	return file, all && len(good) == len(tables)
}

// parseSockets checks sockets as those of a fleet that has nothing else.
func parseSockets(f fleetfile.Found, tables map[string]any) (*fleetfile.File, error) {
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(map[string]any{"socket": tables}); err != nil {
		return nil, err
	}
	return fleetfile.Parse(f.Name, f.Path, b.Bytes(), fleetfile.Host{})
}

// socketTables decodes as much of the file as is TOML: what is above the table
// with the first error, or above the one before that, as a quotation mark that is
// missing shows only further down. No more is tried than a boot can wait for.
func socketTables(path string) (tables map[string]any, all bool) {
	data, err := readRegular(path)
	if err != nil {
		return nil, false
	}
	all = true
	for range 8 {
		var root map[string]any
		_, err := toml.Decode(string(data), &root)
		if err == nil {
			tables, _ = root["socket"].(map[string]any)
			octal(tables)
			return tables, all
		}
		broken := toml.ParseError{}
		if !errors.As(err, &broken) {
			return nil, false
		}
		all = false
		data = data[:min(max(broken.Position.Start, 0), len(data))]
		data = data[:max(bytes.LastIndex(data, []byte("\n[")), 0)]
	}
	return nil, false
}

// octal makes modes the texts that they can be in a fleet file: an encoder would
// write 0o660 as a decimal number.
func octal(tables map[string]any) {
	for _, table := range tables {
		table, _ := table.(map[string]any)
		if mode, ok := table["mode"].(int64); ok {
			table["mode"] = fmt.Sprintf("%04o", mode)
		}
	}
}

// readRegular reads what can be a fleet file. It does not wait for a pipe.
func readRegular(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	const most = 1 << 20 // that of a fleet file
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, errors.New("it is not a fleet file")
	}
	return io.ReadAll(io.LimitReader(file, most))
}
