// SPDX-License-Identifier: AGPL-3.0-or-later

package reach

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/cmd/internal/exit"
	"github.com/decnet/prefork/supervisor/control"
	"github.com/decnet/prefork/supervisor/fleetfile"
)

// Await is [Connect] that waits for a master that is not there yet, until ctx ends. A fleet
// without a file is not waited for. It looks when something appears where the master's
// socket is to be (inotify(7)).
func Await(ctx context.Context, fleet string) (*Master, error) {
	for {
		places, err := watchPlaces(fleet) // before it looks: nothing is missed
		if err != nil {
			return nil, err
		}
		m, err := Connect(fleet)
		if absent := (*notRunning)(nil); errors.As(err, &absent) && !absent.forGood && ctx.Err() == nil {
			waitFor(ctx, places)
			continue
		}
		_ = places.Close() // nothing was written
		return m, err
	}
}

// watchPlaces watches where the control sockets of a fleet are to be: of each the innermost
// directory that exists.
func watchPlaces(fleet string) (*os.File, error) {
	path, _ := fleetfile.Resolve(fleet) // Connect says what is wrong
	sockets, err := socketsOf(fleet, path)
	if err != nil {
		return nil, exit.Failed("%v", err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, exit.Failed("inotify_init1: %v", err)
	}
	for _, at := range sockets {
		watchPlace(fd, at)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// watchPlace: a socket that is there and refuses connections changes its attributes when it
// listens.
func watchPlace(fd int, at control.Address) {
	const news = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_DELETE_SELF
	for dir := filepath.Dir(at.Socket); ; dir = filepath.Dir(dir) {
		if _, err := unix.InotifyAddWatch(fd, dir, news); err == nil || dir == filepath.Dir(dir) {
			return
		}
	}
}

// waitFor waits until something happens there, or ctx ends, and closes it.
func waitFor(ctx context.Context, places *os.File) {
	defer places.Close() //nolint:errcheck // nothing was written
	defer context.AfterFunc(ctx, func() { _ = places.SetReadDeadline(time.Unix(1, 0)) })()
	_, _ = places.Read(make([]byte, 4096)) // what it was is seen by looking
}
