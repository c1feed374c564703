// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/zygote"
)

// errRefused is of a fork that the zygote has refused.
var errRefused = errors.New("the zygote refuses to fork")

// fork asks for a worker, and waits until it has introduced itself. procs stands for the
// cgroup.procs of its group, and may be left out.
func (m *master) fork(procs ...int) (*worker, error) {
	gates, err := m.send(1, procs...)
	if err != nil {
		return nil, err
	}
	return m.greet(gates[0], m.last)
}

// send asks for workers together, and returns the other ends of their gates. Their ids are
// the last ones.
func (m *master) send(n int, procs ...int) (gates []int, err error) {
	var ids []uint64
	var theirs []int
	m.ends = nil
	for range n {
		our, their, err := linux.Seqpacket()
		if err != nil {
			return nil, err
		}
		m.keep(our)
		m.last++
		var stat unix.Stat_t
		if err := unix.Fstat(their, &stat); err != nil {
			return nil, os.NewSyscallError("fstat", err)
		}
		m.ends = append(m.ends, fmt.Sprintf("socket:[%d]", stat.Ino))
		ids, gates, theirs = append(ids, m.last), append(gates, our), append(theirs, their)
	}
	err = zygote.Fork(m.command, ids, theirs, procs)
	for i := range theirs {
		linux.CloseFD(&theirs[i])
	}
	if err != nil {
		return nil, fmt.Errorf("send fork: %v", err)
	}
	return gates, nil
}

// greet waits until a worker has introduced itself, or is refused.
func (m *master) greet(ours int, id uint64) (*worker, error) {
	if err := m.readable("no hello", ours, m.command); err != nil {
		return nil, err
	}
	said, err := gate.Receive(ours)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, io.EOF): // of a worker that is refused, no gate is left
		answer, err := m.hear()
		if err != nil {
			return nil, fmt.Errorf("no hello, and no refused: %v", err)
		}
		// Whichever process has said so: when the last one that was to fork has gone, so has
		// its end of the gate.
		_ = m.readable("the gate of a refused worker is not closed", ours)
		return nil, fmt.Errorf("%w: %s", errRefused, shown(answer))
	case err != nil:
		return nil, err
	}
	hello, ok := said.(gate.Hello)
	if !ok || hello.ID != id {
		return nil, fmt.Errorf("want hello %d, got %+v", id, said)
	}
	w := &worker{master: m, pid: hello.PID, gate: ours}
	if w.pidfd, err = linux.PidfdOpen(w.pid); err != nil {
		return nil, fmt.Errorf("the sender of hello, %d, has ended: %v", w.pid, err)
	}
	m.keep(w.pidfd)
	return w, nil
}
