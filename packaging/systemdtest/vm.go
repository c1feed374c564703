// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// VMSuites are the Debian releases that virtual machines can be made of: with
// systemd 252 on kernel 6.1, and 257 on 6.12.
var VMSuites = []string{"bookworm", "trixie"}

// VM is a running virtual machine, without hardware support and so some twenty
// times slower than this one. Unlike a [Machine] it has a kernel of its own, and
// every controller of cgroup v2.
type VM struct {
	Suite string

	dir    string // as the emulator sees it, below root
	root   string // the emulator's root filesystem
	cmd    *exec.Cmd
	exited chan struct{} // closed when the emulator has been reaped
	conn   net.Conn
	lines  *bufio.Reader
	last   int // id of a request
}

// vmCeiling is how long any fact may take to come true.
const vmCeiling = 5 * time.Minute

// BootVM starts a virtual machine and returns when it takes commands. Each setup
// is called with a directory that is laid over its root filesystem. The machine
// ends with the test. One runs at a time.
func BootVM(t testing.TB, suite string, setup ...func(t testing.TB, root string)) *VM {
	t.Helper()
	require(t)
	for range cap(slots) { // it takes all that there is
		slots <- struct{}{}
		t.Cleanup(func() { <-slots })
	}
	vm := &VM{Suite: suite, exited: make(chan struct{}), root: image(t, "emulator")}
	disk := image(t, suite)
	work, err := os.MkdirTemp(filepath.Join(vm.root, "tmp"), "vm-")
	if err != nil {
		t.Fatal(err)
	}
	guard, err := startGuard(nil, work)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guard.release(); err != nil {
			t.Errorf("%s: guard of %s: %v", suite, work, err)
		}
	})
	vm.dir = strings.TrimPrefix(work, vm.root)
	payload := filepath.Join(work, "payload")
	if err := os.Mkdir(payload, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range setup {
		f(t, payload)
	}
	for _, args := range [][]string{
		{"mke2fs", "-q", "-t", "ext4", "-d", payload, filepath.Join(work, "payload.img"), "128M"},
		// The copies share what they have in common where the file system can.
		{
			"cp", "--reflink=auto", "--sparse=always", filepath.Join(disk, "disk.img"), filepath.Join(disk, "vmlinuz"),
			filepath.Join(disk, "initrd.img"), work,
		},
	} {
		if err := run(work, args...); err != nil {
			t.Fatal(err)
		}
	}
	vm.start(t)
	return vm
}

// image returns what vmimage.sh has made.
func image(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(cache(), "vm-"+name)
	once, _ := checked.LoadOrStore("vm-"+name, sync.OnceValue(func() error {
		t.Logf("checking %s; making it, if need be, takes minutes", dir)
		return runScript(t, "vmimage.sh", name, dir)
	}))
	if err := once.(func() error)(); err != nil {
		t.Fatalf("image of %s: %v", name, err)
	}
	return dir
}

func (vm *VM) start(t testing.TB) {
	t.Helper()
	at := func(name string) string { return filepath.Join(vm.dir, name) }
	listener, err := net.Listen("unix", filepath.Join(vm.root, at("agent")))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	console, err := os.Create(filepath.Join(vm.root, at("console")))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	vm.cmd = exec.Command("/usr/bin/qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-display", "none", "-no-reboot",
		"-kernel", at("vmlinuz"), "-initrd", at("initrd.img"),
		"-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=0 mitigations=off",
		"-drive", "file="+at("disk.img")+",format=raw,if=virtio,cache=unsafe",
		"-drive", "file="+at("payload.img")+",format=raw,if=virtio,cache=unsafe",
		"-nic", "none", "-serial", "stdio",
		"-chardev", "socket,id=agent,path="+at("agent"), "-serial", "chardev:agent")
	vm.cmd.Dir = "/"
	vm.cmd.Env = []string{"PATH=/usr/bin:/bin"}
	vm.cmd.Stdout, vm.cmd.Stderr = console, console
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: vm.root, Setsid: true, Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := vm.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = vm.cmd.Wait() // how it ended is on its console
		close(vm.exited)
	}()
	t.Cleanup(func() { vm.stop(t) })
	_ = listener.(*net.UnixListener).SetDeadline(time.Now().Add(vmCeiling)) // a listener takes one
	if vm.conn, err = listener.Accept(); err != nil {
		t.Fatalf("%s: %v; its console:\n%s", vm.Suite, err, vm.console())
	}
	vm.lines = bufio.NewReaderSize(vm.conn, 1<<20)
	for {
		line, err := vm.read()
		if err != nil {
			t.Fatalf("%s: no answer: %v; its console:\n%s", vm.Suite, err, vm.console())
		}
		if strings.TrimSpace(line) == "hello" {
			break
		}
	}
	kernel, _ := vm.Try("uname", "-r")
	version, _ := vm.Try("systemctl", "--version")
	first, _, _ := strings.Cut(version, "\n")
	t.Logf("%s: %s, kernel %s, up after %s", vm.Suite, first, strings.TrimSpace(kernel), time.Since(begin).Round(time.Second))
}

func (vm *VM) read() (string, error) {
	if err := vm.conn.SetReadDeadline(time.Now().Add(vmCeiling)); err != nil {
		return "", err
	}
	return vm.lines.ReadString('\n')
}

func (vm *VM) console() string {
	text, err := os.ReadFile(filepath.Join(vm.root, vm.dir, "console"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-8000):])
}

// stop ends the machine; nothing of its disk is wanted any more. A failed test
// shows its journal first.
func (vm *VM) stop(t testing.TB) {
	if t.Failed() && vm.conn != nil {
		journal, _ := vm.Try("journalctl", "--boot", "--no-pager", "--lines=300", "--output=short-precise")
		t.Logf("%s: end of the journal:\n%s", vm.Suite, journal)
	}
	if vm.conn != nil {
		vm.conn.Close()
	}
	_ = vm.cmd.Process.Kill() // it may have ended just now
	<-vm.exited
}

type vmRequest struct {
	ID    int      `json:"id"`
	Args  []string `json:"args"`
	Input []byte   `json:"input"`
}

type vmReply struct {
	ID     int    `json:"id"`
	Code   int    `json:"code"`
	Output []byte `json:"output"`
}

// Try runs a command inside the machine, as root, and returns its output,
// standard error included, and its exit status: -1 if it could not be run.
func (vm *VM) Try(args ...string) (out string, code int) { return vm.try(nil, args...) }

func (vm *VM) try(input []byte, args ...string) (out string, code int) {
	vm.last++
	if input == nil {
		input = []byte{}
	}
	request, err := json.Marshal(vmRequest{vm.last, args, input})
	if err != nil {
		return err.Error(), -1
	}
	if _, err := vm.conn.Write(append(request, '\n')); err != nil {
		return err.Error(), -1
	}
	for {
		line, err := vm.read()
		if err != nil {
			return err.Error(), -1
		}
		var reply vmReply
		if json.Unmarshal([]byte(line), &reply) == nil && reply.ID == vm.last {
			return string(reply.Output), reply.Code
		}
	}
}

// Run is Try that ends the test if the command fails.
func (vm *VM) Run(t testing.TB, args ...string) string {
	t.Helper()
	out, code := vm.Try(args...)
	if code != 0 {
		t.Fatalf("%s: %s: exit status %d:\n%s", vm.Suite, strings.Join(args, " "), code, out)
	}
	return out
}

// WriteFile writes a file inside the machine, readable by all, and makes the
// directories above it.
func (vm *VM) WriteFile(t testing.TB, path, content string) {
	t.Helper()
	out, code := vm.try([]byte(content), "sh", "-c", `mkdir -p "$(dirname "$1")" && cat >"$1" && chmod 0644 "$1"`, "sh", path)
	if code != 0 {
		t.Fatalf("%s: write %s: %s", vm.Suite, path, out)
	}
}

// ReadFile returns the content of a file inside the machine, "" if there is no
// such file.
func (vm *VM) ReadFile(path string) string {
	out, code := vm.Try("cat", path)
	if code != 0 {
		return ""
	}
	return out
}

// WaitFor asks again and again until the answer is true, and ends the test if
// it does not become so.
func (vm *VM) WaitFor(t testing.TB, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(vmCeiling); !fact(); time.Sleep(200 * time.Millisecond) {
		select {
		case <-vm.exited:
			t.Fatalf("%s: no %s: the machine has ended. Its console:\n%s", vm.Suite, what, vm.console())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: no %s within %v", vm.Suite, what, vmCeiling)
		}
	}
}

// File is a setup for [BootVM] that writes a file.
func File(path, content string) func(t testing.TB, root string) {
	return func(t testing.TB, root string) {
		t.Helper()
		path := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
