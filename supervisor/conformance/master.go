// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/text"
	"github.com/decnet/prefork/supervisor/zygote"
)

// reserve is how many numbers a zygote is to keep free for its workers.
const reserve = 16

// master has one zygote.
type master struct {
	*Options
	command int // our end
	pid     int // of the zygote
	pidfd   int
	output  int      // a memfd: what the zygote and its workers write
	last    uint64   // id of a request
	ends    []string // workers' ends of the last gates, as /proc/PID/fd shows them
	most    int      // workers that it can be asked for at a time
	open    []int    // descriptors that end with the check
}

// worker is a process at its gate.
type worker struct {
	*master
	pid, pidfd, gate int
}

func newMaster(o *Options) (*master, error) {
	m := &master{Options: o, command: -1, pidfd: -1}
	var err error
	m.output, err = unix.MemfdCreate("prefork-output", unix.MFD_CLOEXEC)
	m.keep(m.output)
	return m, os.NewSyscallError("memfd_create", err)
}

func (m *master) keep(fds ...int) { m.open = append(m.open, fds...) }

// end closes what is open, and ends whatever came from the zygote.
func (m *master) end() {
	for _, fd := range append(m.open, m.command) {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing can be lost in it
		}
	}
	for {
		for _, pid := range children(os.Getpid()) {
			_ = unix.Kill(pid, unix.SIGKILL) // a child that has not been waited for keeps its number
		}
		_, err := unix.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // ECHILD
		}
	}
}

// children are those of a process, zombies too.
func children(pid int) []int {
	all, _ := linux.Processes() // without /proc nothing here works
	return slices.DeleteFunc(all, func(other int) bool {
		stat, err := linux.ReadStat(other)
		return err != nil || stat.Parent != pid // it has ended, or is another's
	})
}

// environment is what the zygote has, but for what says that it is one.
func environment() (list []string) {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc([]string{"NOTIFY_", "LISTEN_", "WATCHDOG_", "FDSTORE", "JOURNAL_", "LANG", "LC_"}, func(p string) bool {
			return strings.HasPrefix(name, p)
		}) {
			list = append(list, kv)
		}
	}
	return append(list, "LANG=C.UTF-8", "PREFORK_FLEET=conformance")
}

// start starts the zygote as a master does: the shim becomes it.
func (m *master) start(env ...string) error {
	ours, theirs, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	m.command = ours
	defer linux.CloseFD(&theirs)
	orders := &gate.Orders{
		Fleet: "conformance", Slot: "floor", Generation: 1, Base: environment(), Env: env,
		Reserve: reserve, Argv: m.Zygote, Stdout: true, Stderr: true,
	}
	fds := []int{m.output, m.output, theirs}
	if m.Zygote == nil {
		source, err := linux.Memfd("prefork-zygote", zygote.Source())
		if err != nil {
			return err
		}
		defer linux.CloseFD(&source)
		orders.Argv, fds = zygote.Argv(m.Python, reserve), append(fds, source)
	} else {
		orders.Env = append(zygote.Environment(reserve), env...)
	}
	atGate, shim, err := linux.Seqpacket()
	if err != nil {
		return err
	}
	m.keep(atGate)
	defer linux.CloseFD(&shim)
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open /dev/null", err)
	}
	defer linux.CloseFD(&null)
	m.pid, err = syscall.ForkExec("/proc/self/exe", []string{gate.ShimName}, &syscall.ProcAttr{
		Files: []uintptr{uintptr(null), 1, 2, uintptr(shim)},
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &m.pidfd},
	})
	if err != nil {
		return os.NewSyscallError("fork/exec the shim", err)
	}
	m.keep(m.pidfd)
	if err := gate.Send(atGate, orders, fds...); err != nil {
		return err
	}
	linux.CloseFD(&shim)
	if err := m.readable("the zygote does not start", atGate); err != nil {
		return err
	}
	if said, err := gate.Receive(atGate); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the zygote cannot be started: %v", said)
	}
	return nil
}

// request is what the zygote is asked to load.
func (m *master) request() *zygote.LoadRequest {
	r := &zygote.LoadRequest{
		Fleet: "conformance", Generation: 1, Title: "prefork: floor [conformance] gen 1",
		Path: m.Path, Preload: m.Preload, Setup: m.Setup, Entries: []string{m.Entry}, Prctl: true,
	}
	if m.Zygote == nil {
		r.Python = &zygote.Python{GCFreeze: true}
	}
	return r
}

// ask starts the zygote and has it load, and reads until it says something else than what
// it does.
func (m *master) ask(change func(r *zygote.LoadRequest), env ...string) (answer zygote.Message, progress int, err error) {
	if err := m.start(env...); err != nil {
		return answer, 0, err
	}
	r := m.request()
	if change != nil {
		change(r)
	}
	if err := linux.Send(m.command, append(r.Encode(), "\x00a_field_that_is_new=1"...)); err != nil {
		return answer, 0, fmt.Errorf("send floor: %v", err)
	}
	for {
		answer, err = m.hear()
		if err != nil || answer.Kind != zygote.Progress {
			return answer, progress, err
		}
		progress++
	}
}

// load is ask for a floor that can be loaded.
func (m *master) load() error {
	answer, _, err := m.ask(nil)
	m.most = answer.Forks
	switch {
	case err != nil:
		return err
	case answer.Kind != zygote.Loaded:
		return fmt.Errorf("want loaded, got %s", shown(answer))
	}
	return nil
}

func shown(m zygote.Message) string {
	switch m.Kind {
	case zygote.Loaded:
		return fmt.Sprintf("loaded %d", m.Protocol)
	case zygote.Refused:
		return fmt.Sprintf("refused %d %d %q", m.ID, int(m.Errno), m.Text)
	}
	return fmt.Sprintf("%s %q", m.Kind, m.Text)
}

// hear waits for one message of the zygote.
func (m *master) hear() (zygote.Message, error) {
	if err := m.readable("the zygote says nothing", m.command); err != nil {
		return zygote.Message{}, err
	}
	buf := make([]byte, zygote.MaxMessage)
	n, _, err := linux.Receive(m.command, buf)
	if errors.Is(err, io.EOF) {
		return zygote.Message{}, errors.New("the zygote has closed its socket, or ended")
	}
	if err != nil {
		return zygote.Message{}, err
	}
	return zygote.Decode(buf[:n])
}

// readable waits until one of some descriptors is; what is told if none ever is.
func (m *master) readable(what string, fds ...int) error {
	polled := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		polled[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	deadline := time.Now().Add(m.Patience)
	for {
		n, err := unix.Poll(polled, int(max(0, time.Until(deadline)).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return fmt.Errorf("%s within %s", what, m.Patience)
		default:
			return nil
		}
	}
}

// exit waits for the end of a child.
func (m *master) exit(who string, pid, pidfd int) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	if err := m.readable(who+" does not end", pidfd); err != nil {
		return status, err
	}
	_, err := unix.Wait4(pid, &status, 0, nil)
	return status, os.NewSyscallError("wait4", err)
}

// wantExit is exit, and the status that it must have.
func (m *master) wantExit(who string, pid, pidfd, want int) error {
	status, err := m.exit(who, pid, pidfd)
	if err == nil && (!status.Exited() || status.ExitStatus() != want) {
		err = fmt.Errorf("%s ends with %s, want exit status %d", who, ending(status), want)
	}
	return err
}

func ending(s unix.WaitStatus) string {
	if s.Signaled() {
		return unix.SignalName(s.Signal())
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}

// tell sends a worker its orders, with a field that it does not know.
func (w *worker) tell(o *gate.Orders, fds ...int) error {
	o.Fleet, o.Worker, o.Slot, o.Comm, o.Title = "conformance", "w", "w.0", "w.0", "prefork: w.0 [conformance] gen 1"
	o.Generation, o.Master = 1, cmp.Or(o.Master, os.Getpid())
	if o.Entry == "" {
		o.Entry = w.Entry
	}
	fields := append(o.Encode(), "\x00a_field_that_is_new=1"...)
	msg := append([]byte("go\x00"), fields...)
	if len(msg) > gate.InlineMax {
		long, err := linux.Memfd("prefork-orders", fields)
		if err != nil {
			return err
		}
		defer linux.CloseFD(&long)
		msg, fds = []byte("go\x00memfd"), append([]int{long}, fds...)
	}
	return linux.Send(w.gate, msg, fds...)
}

// run has a worker call the test entry with a word.
func (w *worker) run(word string, o gate.Orders, fds ...int) error {
	o.Args = zygote.ListLiteral([]any{word})
	return w.tell(&o, fds...)
}

// leaves waits until a worker has left its gate. What it says before that is an error.
func (w *worker) leaves() error {
	if err := w.readable("the worker does not close its gate", w.gate); err != nil {
		return err
	}
	said, err := gate.Receive(w.gate)
	if failed, ok := said.(gate.Failed); ok {
		return fmt.Errorf("failed: %s", failed.Text)
	}
	if !errors.Is(err, io.EOF) {
		return fmt.Errorf("want the gate to be closed, got %+v, %v", said, err)
	}
	return nil
}

// fails waits for a worker that cannot become what it was told, and for its end, and
// returns its exit status and the cause.
func (w *worker) fails() (status int, text string, err error) {
	if err := w.readable("the worker says nothing", w.gate); err != nil {
		return 0, "", err
	}
	buf := make([]byte, 2*gate.InlineMax)
	n, _, err := linux.Receive(w.gate, buf)
	if errors.Is(err, io.EOF) {
		return 0, "", errors.New("the gate was closed, without failed")
	}
	name, rest, _ := strings.Cut(string(buf[:n]), "\x00")
	number, text, found := strings.Cut(rest, "\x00")
	status, bad := strconv.Atoi(number)
	if name != "failed" || !found || bad != nil || status < 1 || status > 255 || text == "" {
		return 0, "", fmt.Errorf("want failed NUL status NUL text, got %q", buf[:n])
	}
	return status, text, w.wantExit("the worker that has failed", w.pid, w.pidfd, status)
}

// tail is the last that the zygote and its workers wrote.
func (m *master) tail() string {
	const most = 2000
	buf := make([]byte, most)
	var stat unix.Stat_t
	if unix.Fstat(m.output, &stat) != nil {
		return ""
	}
	n, _ := unix.Pread(m.output, buf, max(0, stat.Size-most)) // no output is none
	return text.PrintableLines(string(buf[:max(0, n)]))
}
