// SPDX-License-Identifier: AGPL-3.0-or-later

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// example is the folder of which the tests here run the files as they are.
const example = "../../packaging/examples/container/"

// container is a root filesystem with the fleet in it, and a master that is
// process 1 of namespaces of its own: of pids, mounts, network, host name and IPC.
// What a runtime would make of an image is made by becomeContainer.
type container struct {
	*rig
	image  image
	grace  time.Duration // terminationGracePeriodSeconds
	client *http.Client  // connects from within its network
}

// image is what a Containerfile says.
type image struct {
	Root       string // a folder of the host
	Binds      []string
	Entrypoint []string
	Env        []string
	UID, GID   int
	ReadOnly   bool     // the root
	Tmpfs      []string // what can be written all the same
}

// becomeContainer is the part of a container runtime: a process in new namespaces
// becomes the entry point of an image.
func becomeContainer() {
	var img image
	check := func(err error, what string) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "container: %s: %v\n", what, err)
			os.Exit(125) // as podman does
		}
	}
	check(json.Unmarshal([]byte(os.Getenv("PREFORK_TEST_IMAGE")), &img), "image")
	at := func(path string) string { return filepath.Join(img.Root, path) }
	mount := func(source, target, kind string, flags uintptr, data string) {
		check(unix.Mount(source, target, kind, flags, data), "mount "+target)
	}
	mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	mount(img.Root, img.Root, "", unix.MS_BIND, "")
	for _, path := range img.Binds {
		mount(path, at(path), "", unix.MS_BIND, "")
		mount("", at(path), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	mount("proc", at("/proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	mount("tmpfs", at("/dev"), "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=755")
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		check(os.WriteFile(at("/dev/"+name), nil, 0o666), name)
		mount("/dev/"+name, at("/dev/"+name), "", unix.MS_BIND, "")
	}
	for _, path := range img.Tmpfs {
		mount("tmpfs", at(path), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777") // as an emptyDir
	}
	check(unix.Sethostname([]byte("fleet")), "host name")
	check(loopback(), "loopback")
	check(os.Chdir(img.Root), "root")
	check(unix.PivotRoot(".", "."), "pivot_root") // the old root is mounted over the new one
	check(unix.Unmount(".", unix.MNT_DETACH), "old root")
	check(os.Chdir("/"), "root")
	if img.ReadOnly {
		mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
	check(syscall.Setgroups(nil), "groups")
	check(syscall.Setgid(img.GID), "gid")
	check(syscall.Setuid(img.UID), "uid")
	check(unix.Exec(img.Entrypoint[0], img.Entrypoint, img.Env), "exec")
}

// loopback brings the only interface of a new network up.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq)
}

// needContainers skips a test that needs namespaces; where everything must run it
// fails.
func needContainers(t *testing.T) {
	t.Helper()
	needRoot(t)
	if err := exec.Command("unshare", "--pid", "--mount", "--net", "--uts", "--ipc", "--fork", "true").Run(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("namespaces cannot be made, and with CI=true nothing is skipped: %v", err)
		}
		t.Skipf("namespaces cannot be made: %v", err)
	}
}

// built is the program as make build makes it: without the race detector, and
// without a C library that the container would need.
var built = sync.OnceValues(func() (string, error) {
	var err error
	if builtDir, err = os.MkdirTemp("", "prefork-built-"); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-o", builtDir+"/prefork", ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return builtDir + "/prefork", nil
})

var builtDir string // removed when all tests have ended; "" if none needed it

// newContainer makes what podman build would make of the Containerfile, but for
// the base image: that is this machine's Python and shell.
func newContainer(t *testing.T) *container {
	t.Helper()
	needContainers(t)
	c := &container{rig: &rig{t: t, dir: t.TempDir(), exited: make(chan struct{})}}
	c.image.Root = filepath.Join(c.dir, "root")
	c.image.ReadOnly, c.image.Tmpfs = true, []string{"/run", "/tmp"}
	for _, path := range []string{"/proc", "/dev", "/run", "/tmp", "/etc", "/usr/bin"} {
		c.mkdir(path)
	}
	c.base()
	c.build()
	pod, err := os.ReadFile(example + "pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seconds, _ := strconv.Atoi(one(t, string(pod), `terminationGracePeriodSeconds: (\d+)`)) // digits
	c.grace = time.Duration(seconds) * time.Second
	for _, want := range []string{"httpGet: {path: /healthz, port: 9090}", "httpGet: {path: /readyz, port: 9090}", "readOnlyRootFilesystem: true", "mountPath: /run", "mountPath: /tmp"} {
		if !strings.Contains(string(pod), want) {
			t.Errorf("pod.yaml does not say %s", want)
		}
	}
	return c
}

func one(t *testing.T, text, pattern string) string {
	t.Helper()
	found := regexp.MustCompile("(?m)"+pattern).FindAllStringSubmatch(text, -1)
	if len(found) != 1 {
		t.Fatalf("%d times %s in\n%s", len(found), pattern, text)
	}
	return found[0][1]
}

func (c *container) mkdir(path string) {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Join(c.image.Root, path), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) bind(path string) {
	c.t.Helper()
	c.mkdir(path)
	c.image.Binds = append(c.image.Binds, path)
}

// copy puts a file of the host into the image.
func (c *container) copy(from, to string, mode os.FileMode) {
	c.t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mkdir(filepath.Dir(to))
	if err := os.WriteFile(filepath.Join(c.image.Root, to), data, mode); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) link(target, path string) {
	c.t.Helper()
	if err := os.Symlink(target, filepath.Join(c.image.Root, path)); err != nil {
		c.t.Fatal(err)
	}
}

// base is what the base image and its packages would give.
func (c *container) base() {
	c.t.Helper()
	c.bind("/usr/lib")
	for _, path := range []string{"/bin", "/lib", "/lib64"} {
		if target, err := os.Readlink(path); err == nil {
			c.link(target, path)
		} else if _, err := os.Stat(path); err == nil {
			c.bind(path)
		}
	}
	if _, err := os.Stat("/usr/lib64"); err == nil {
		c.bind("/usr/lib64")
	}
	for _, name := range []string{"sh", "sleep", "date"} {
		path, err := exec.LookPath(name)
		if err != nil {
			c.t.Fatal(err)
		}
		c.copy(path, "/usr/bin/"+name, 0o755)
	}
	out, err := exec.Command("python3", "-c", "import os, sys; print(os.path.realpath(sys.executable), sys.base_prefix)").Output()
	if err != nil {
		c.t.Fatal(err)
	}
	python := strings.Fields(string(out))
	if python[1] == "/usr" {
		c.copy(python[0], "/usr/bin/python3", 0o755)
		return
	}
	c.bind(python[1])
	c.link(python[0], "/usr/bin/python3")
}

// build does what the last stage of the Containerfile says.
func (c *container) build() {
	c.t.Helper()
	text, err := os.ReadFile(example + "Containerfile")
	if err != nil {
		c.t.Fatal(err)
	}
	program, err := built()
	if err != nil {
		c.t.Fatal(err)
	}
	_, last, _ := strings.Cut(string(text), "\nFROM docker.io/library/debian")
	c.copy(program, one(c.t, last, `^COPY --from=build /prefork (\S+)$`), 0o755)
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-]\S*) (\S+)$`).FindAllStringSubmatch(last, -1) {
		c.copy("../../"+m[1], m[2], 0o644)
	}
	if err := json.Unmarshal([]byte(one(c.t, last, `^ENTRYPOINT (.+)$`)), &c.image.Entrypoint); err != nil {
		c.t.Fatal(err)
	}
	c.image.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", one(c.t, last, `^ENV (\S+)$`)}
	if _, err := fmt.Sscanf(one(c.t, last, `^USER (\S+)$`), "%d:%d", &c.image.UID, &c.image.GID); err != nil {
		c.t.Fatal(err)
	}
	if one(c.t, last, `^STOPSIGNAL (\S+)$`) != "SIGTERM" {
		c.t.Error("the tests stop with SIGTERM")
	}
}

// fleet replaces the example's fleet file, but for its metrics.
func (c *container) fleet(file string) {
	c.t.Helper()
	text := "[metrics]\nlisten = \"0.0.0.0:9090\"\n" + file
	if err := os.WriteFile(filepath.Join(c.image.Root, "etc/prefork/fleet.toml"), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

func (c *container) run() {
	c.t.Helper()
	text, err := json.Marshal(c.image)
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd = exec.Command(self(c.t))
	c.cmd.Env = []string{"PREFORK_TEST_ROLE=container", "PREFORK_TEST_IMAGE=" + string(text), "GORACE=atexit_sleep_ms=0"}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	c.start()
	network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.pid()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = network.Close() })
	c.client = &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, kind, address string) (net.Conn, error) {
			return dialFrom(ctx, network, kind, address)
		},
	}}
}

// dialFrom connects from another network: a socket belongs to that of the thread
// that makes it (network_namespaces(7)).
func dialFrom(ctx context.Context, network *os.File, kind, address string) (net.Conn, error) {
	runtime.LockOSThread() // a thread that cannot come back is not used again
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close() //nolint:errcheck // read only
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return conn, err
}

// probe is what an orchestrator's probe gets: the status, 0 for none.
func (c *container) probe(path string) (int, string) {
	c.t.Helper()
	status, body, _ := ask(c.t, c.client, "127.0.0.1:9090", path, "*/*") // an error is the status 0
	return status, body
}

func (c *container) value(series string) float64 {
	c.t.Helper()
	status, body := c.probe("/metrics")
	if status != 200 {
		c.t.Fatalf("/metrics: %d, %s", status, body)
	}
	return valueIn(c.t, body, series)
}

func (c *container) waitReady() {
	c.t.Helper()
	c.eventually("the readiness probe succeeds", func() bool {
		select {
		case <-c.exited:
			c.t.Fatal("it ended before it was ready")
		default:
		}
		status, _ := c.probe("/readyz")
		return status == 200
	})
}

// exec runs a program in the container, as kubectl exec does.
func (c *container) exec(args ...string) string {
	c.t.Helper()
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(c.pid()), "--pid", "--mount", "--net", "--uts", "--ipc", "--root", "--wd",
		"--setuid", strconv.Itoa(c.image.UID), "--setgid", strconv.Itoa(c.image.GID),
	}, args...)...)
	cmd.Env = c.image.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Errorf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// wantStop waits for the end: exit status 0 within the grace period, and with it
// everything that ran in the container.
func (c *container) wantStop(within time.Duration) {
	c.t.Helper()
	began := time.Now()
	if code := c.wait(); code != 0 {
		c.t.Errorf("exit status %d", code)
	}
	if took := time.Since(began); took > within {
		c.t.Errorf("it stopped after %s, which is more than %s", took, within)
	}
	if !strings.Contains(c.logged(), "fleet shut down") {
		c.t.Error("it did not shut down by itself")
	}
}

// wantNoZombies: whatever ends in the container is reaped by process 1.
func (c *container) wantNoZombies() {
	c.t.Helper()
	c.eventually("no zombie is left", func() bool {
		for _, p := range processes(c.t) {
			if p.parent == c.pid() && p.state == 'Z' {
				return false
			}
		}
		return true
	})
}
