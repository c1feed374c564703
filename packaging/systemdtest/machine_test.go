// SPDX-License-Identifier: AGPL-3.0-or-later

package systemdtest

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A notify service in Python stands in for prefork: it shows that the machine
// does what the other tests take for granted.
const standIn = `
import os, signal, socket
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.connect(os.environ["NOTIFY_SOCKET"])
print("standing in", flush=True)
notify.send(b"READY=1\nSTATUS=all is well")
signal.pause()
`

const standInUnit = `
[Service]
Type=notify
ExecStart=/usr/bin/python3 /opt/stand-in.py
`

func TestMachine(t *testing.T) {
	for _, suite := range Suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			var m *Machine
			// The subtest ends the machine, so that what is left can be looked for.
			t.Run("up", func(t *testing.T) {
				m = Boot(t, suite)
				useMachine(t, m)
			})
			if m != nil && m.nspawn != nil {
				assertGone(t, m)
			}
		})
	}
}

func useMachine(t *testing.T, m *Machine) {
	m.WriteFile(t, "/opt/stand-in.py", standIn)
	m.WriteFile(t, "/etc/systemd/system/stand-in.service", standInUnit)
	m.Run(t, "systemctl", "start", "stand-in.service")
	u := m.Service(t, "stand-in.service")
	if u.ActiveState != "active" || u.StatusText != "all is well" || u.NRestarts != 0 {
		t.Errorf("stand-in.service is %+v", u)
	}
	m.Run(t, "kill", "-0", fmt.Sprint(u.MainPID))
	if journal := m.Journal(t, "stand-in.service"); !strings.Contains(journal, "standing in\n") {
		t.Errorf("journal: %s", journal)
	}
	if _, code := m.Try("sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit status: got %d, want 7", code)
	}
	m.Run(t, "systemctl", "kill", "--signal=SIGKILL", "stand-in.service")
	m.WaitFor(t, "failed stand-in", func() bool {
		u := m.Service(t, "stand-in.service")
		return u.ActiveState == "failed" && u.Result == "signal"
	})
}

// assertGone fails the test if anything of a machine is left: a process, a
// mount, a cgroup, a file.
func assertGone(t *testing.T, m *Machine) {
	t.Helper()
	for _, pid := range []int{m.nspawn.Process.Pid, m.PID} {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	assertNothingOf(t, filepath.Base(m.dir))
}

// alive says whether a process runs. A dead one whose parent has not waited for
// it yet does not.
func alive(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err == nil && !strings.Contains(string(status), "\nState:\tZ")
}

func assertNothingOf(t *testing.T, name string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), name+"*")); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), name) {
		t.Errorf("a mount of %s is left", name)
	}
	for hierarchy, mount := range cgroupMounts(t) {
		// The directory's name is the machine's with a random number.
		machine := name[:strings.LastIndex(name, "-")]
		cgroup := filepath.Join(mount, ownCgroup(t, hierarchy), machine)
		if _, err := os.Stat(cgroup); err == nil {
			t.Errorf("cgroup %s is left", cgroup)
		}
	}
}

// A test process that is killed cannot clean up. The test boots a machine in a
// second test process, kills that and finds nothing left.
func TestMachineEndsWithKilledTestProcess(t *testing.T) {
	if os.Getenv("SYSTEMDTEST_VICTIM") != "" {
		m := Boot(t, "trixie")
		fmt.Println(m.nspawn.Process.Pid, m.PID, filepath.Base(m.dir))
		select {}
	}
	t.Parallel()
	require(t)
	slots <- struct{}{}
	defer func() { <-slots }()

	victim := exec.Command(os.Args[0], "-test.run=^TestMachineEndsWithKilledTestProcess$")
	victim.Env = append(os.Environ(), "SYSTEMDTEST_VICTIM=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	var nspawn, pid int
	var name string
	if _, err := fmt.Fscan(out, &nspawn, &pid, &name); err != nil {
		rest, _ := io.ReadAll(out)
		t.Fatalf("second test process: %v\n%s", err, rest)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed

	// The guard is nobody's child now: the last thing it does is the file.
	m := &Machine{Suite: "trixie"}
	m.WaitFor(t, "removed directory", func() bool {
		_, err := os.Stat(filepath.Join(os.TempDir(), name))
		return os.IsNotExist(err)
	})
	for _, p := range []int{nspawn, pid} {
		if alive(p) {
			t.Errorf("process %d is left", p)
		}
	}
	assertNothingOf(t, name)
}
