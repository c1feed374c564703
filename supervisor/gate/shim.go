// SPDX-License-Identifier: AGPL-3.0-or-later

package gate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
)

// ShimName is the argv[0] that makes the program the shim; the gate is its fd 3.
const ShimName = "prefork-shim"

// InGroup is the argv[1] of a shim that is to enter a control group, whose
// cgroup.procs, open for writing, is its fd 4.
const InGroup = "cgroup"

const (
	shimGate  = 3
	shimGroup = 4
	firstFD   = 3 // SD_LISTEN_FDS_START
)

// refusal is why the shim cannot become its program: what, and the exit status
// that stands for it.
type refusal struct {
	status int
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Errorf(format, args...)}
}

// RunShim waits at the gate and becomes the program that the master names. It
// does not return. The master starts it in a session of its own.
//
// It must run on the main thread: the parent-death signal belongs to the thread
// that asks for it, and execve(2) keeps only that of its caller.
func RunShim() {
	runtime.LockOSThread()
	gate := shimGate
	unix.CloseOnExec(gate)
	var o *Orders
	var fds []int
	err := enterGroup(os.Args)
	if err == nil {
		o, fds, err = receiveOrders(gate)
	}
	if errors.Is(err, io.EOF) {
		os.Exit(0) // the master has ended, or has no use for this process
	}
	if err == nil {
		err = o.become(&gate, fds)
	}
	status := ExitExec
	if r := (*refusal)(nil); errors.As(err, &r) {
		status = r.status
	}
	name := "shim"
	if o != nil && o.Slot != "" {
		name = o.Slot
	}
	why := text.OneLine(err.Error(), MaxText)
	_, _ = unix.Write(2, []byte("prefork: "+name+": "+why+"\n")) // there is nobody else to tell
	_ = linux.Send(gate, fmt.Appendf(nil, "%s\x00%d\x00%s", failed, status, why))
	os.Exit(status)
}

// enterGroup moves this process into the control group whose cgroup.procs it has,
// if it has one. That takes the kernel up to some 10 ms, in which the master can
// do something else. Clone3 with CLONE_INTO_CGROUP would take none, but a unit
// with RestrictNamespaces= has no clone3.
func enterGroup(args []string) error {
	if len(args) < 2 || args[1] != InGroup {
		return nil
	}
	_, err := unix.Write(shimGroup, []byte("0"))
	_ = unix.Close(shimGroup) // read only, or its write has been checked
	if err != nil {
		return refuse(ExitCgroup, "cgroup: %v", err)
	}
	return nil
}

// become turns this process into the program. It returns only if it cannot.
//
// The descriptors come first: package os may open files for the look-ups, and
// the runtime's epoll instance with them, which must not get a number that a
// socket then takes; and a limit of the program's must not be in the way. The
// change of user comes after what needs the rights of before, and before what is
// to be done with those of the user (as in systemd, the working directory).
func (o *Orders) become(gate *int, fds []int) error {
	if len(o.Argv) == 0 {
		return refuse(ExitExec, "no program to execute")
	}
	fds, err := o.takeOutput(fds)
	if err != nil {
		return err
	}
	if named := len(o.Listen) + len(o.Stored); named > 0 && named != len(fds) {
		return refuse(ExitFDs, "%d descriptors came for %d names", len(fds), named)
	}
	if err := placeFDs(gate, o.Reserve, fds); err != nil {
		return refuse(ExitFDs, "%v", err)
	}
	account, err := o.account()
	if err != nil {
		return err
	}
	o.giveOutput(account.uid)
	env := o.environment(account)
	path, err := lookPath(o.Argv[0], env)
	if err != nil {
		return refuse(ExitExec, "%s: %v", o.Argv[0], err)
	}
	program, err := newProgram(path, o.Argv, env)
	if err != nil {
		return refuse(ExitExec, "exec %s: %v", path, err)
	}
	for _, step := range []func() error{
		o.setOOMScore, o.setLimits, o.setNice, o.keepCapabilities,
		func() error { return account.take(o.Notify) }, account.assume,
		o.setDir, o.setAmbient, o.setNoNewPrivs, o.setDeathSignal,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	err = program.execute(o)
	return refuse(ExitExec, "exec %s: %v", path, err)
}

func (o *Orders) takeOutput(fds []int) ([]int, error) {
	for _, to := range o.outputs() {
		if len(fds) == 0 {
			return nil, refuse(ExitFDs, "output without a descriptor")
		}
		if err := unix.Dup3(fds[0], to, 0); err != nil {
			return nil, refuse(ExitFDs, "dup3: %v", err)
		}
		_ = unix.Close(fds[0]) // the copy at its new number stays open
		fds = fds[1:]
	}
	return fds, nil
}

// outputs are the standard descriptors that this process does not inherit.
func (o *Orders) outputs() (fds []int) {
	if o.Stdout {
		fds = append(fds, 1)
	}
	if o.Stderr {
		fds = append(fds, 2)
	}
	return fds
}

// giveOutput gives the pipes that were made for this process to its user, so that
// they can be opened as /dev/stdout. A socket cannot be opened, whoever has it.
func (o *Orders) giveOutput(uid int) {
	if uid < 0 {
		return
	}
	for _, fd := range o.outputs() {
		var stat unix.Stat_t
		if unix.Fstat(fd, &stat) == nil && stat.Mode&unix.S_IFMT == unix.S_IFIFO {
			_ = unix.Fchown(fd, uid, -1) // without the right it can still be written to
		}
	}
}

// environment is Base, what the account, the sockets and the watchdog say, and
// Env, the later winning.
func (o *Orders) environment(a *account) []string {
	env := a.environment(slices.Clone(o.Base))
	pid := strconv.Itoa(os.Getpid())
	if names := slices.Concat(o.Listen, o.Stored); len(names) > 0 {
		env = append(
			env,
			"LISTEN_PID="+pid,
			"LISTEN_FDS="+strconv.Itoa(len(names)),
			"LISTEN_FDNAMES="+strings.Join(names, ":"),
		)
	}
	if o.Watchdog > 0 {
		env = append(env, "WATCHDOG_PID="+pid, "WATCHDOG_USEC="+microseconds(o.Watchdog))
	}
	return lastWins(append(env, o.Env...))
}

// lastWins drops all but the last value of each variable.
func lastWins(env []string) []string {
	last := make(map[string]int, len(env))
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		last[name] = i
	}
	kept := env[:0]
	for i, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if last[name] == i {
			kept = append(kept, kv)
		}
	}
	return kept
}

// lookPath finds a program in the PATH that it will have. A relative directory
// in PATH is not searched.
func lookPath(program string, env []string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, program)
		var stat unix.Stat_t
		if filepath.IsAbs(dir) && unix.Stat(candidate, &stat) == nil &&
			stat.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(candidate, unix.X_OK) == nil {
			return candidate, nil
		}
	}
	return "", fmt.Errorf("not found in PATH (%s)", path)
}

// setOOMScore comes before the limits, which may leave no descriptor to open.
func (o *Orders) setOOMScore() error {
	if o.OOMScoreAdjust == nil {
		return nil
	}
	if err := writeFile("/proc/self/oom_score_adj", strconv.Itoa(*o.OOMScoreAdjust)); err != nil {
		return refuse(ExitOOMAdjust, "oom_score_adjust %d: %v", *o.OOMScoreAdjust, err)
	}
	return nil
}

func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer func() { _ = unix.Close(fd) }() // proc(5) answers at write
	_, err = unix.Write(fd, []byte(text))
	return os.NewSyscallError("write", err)
}

func (o *Orders) setLimits() error {
	for _, l := range o.Limits {
		if l.late() {
			continue
		}
		// Package syscall, because it keeps book of RLIMIT_NOFILE, which Go
		// raises for itself and would put back at exec.
		limit := syscall.Rlimit{Cur: l.Soft, Max: l.Hard}
		if err := syscall.Setrlimit(l.Resource, &limit); err != nil {
			return refuse(ExitLimits, "resource limit %d: setrlimit: %v", l.Resource, err)
		}
	}
	return nil
}

// late tells of a limit of memory that may be below what the runtime has already:
// it would crash when it asks for more. To lower it takes no rights.
func (l Limit) late() bool {
	var now unix.Rlimit
	return (l.Resource == unix.RLIMIT_AS || l.Resource == unix.RLIMIT_DATA) &&
		unix.Getrlimit(l.Resource, &now) == nil && l.Soft <= l.Hard && l.Hard <= now.Max
}

func (o *Orders) setNice() error {
	if o.Umask != nil {
		unix.Umask(int(*o.Umask))
	}
	if o.Nice == nil {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, *o.Nice); err != nil {
		return refuse(ExitNice, "nice %d: setpriority: %v", *o.Nice, err)
	}
	return nil
}

func (o *Orders) setDir() error {
	if o.Dir == "" {
		return nil
	}
	if err := unix.Chdir(o.Dir); err != nil {
		return refuse(ExitChdir, "working directory %s: %v", o.Dir, err)
	}
	return nil
}

func (o *Orders) setNoNewPrivs() error {
	if !o.NoNewPrivs {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return refuse(ExitNoNewPrivileges, "prctl PR_SET_NO_NEW_PRIVS: %v", err)
	}
	return nil
}

// setDeathSignal comes after the change of user, which clears it
// (PR_SET_PDEATHSIG(2const)). The master may have ended before.
func (o *Orders) setDeathSignal() error {
	if !o.DeathSignal {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return refuse(ExitExec, "prctl PR_SET_PDEATHSIG: %v", err)
	}
	if os.Getppid() != o.Master {
		return refuse(ExitExec, "the master has ended")
	}
	return nil
}
