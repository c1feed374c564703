// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile_test

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/fleetfile"
)

func TestLimitedListsWhatNeedsACgroup(t *testing.T) {
	const head = "[worker.a]\nexec = [\"a\"]\n"
	for text, want := range map[string]string{
		"": "",
		"io_weight = 1\ncpu_quota = \"1%\"\ncpu_weight = 100\ntasks_max = 1\nmemory_max = \"4K\"\nmemory_high = 4096": "" +
			"memory_high memory_max tasks_max cpu_weight cpu_quota io_weight",
		"memory_max = \"1G\"\ntasks_max = \"infinity\"":                                              "memory_max",
		"memory_high = \"infinity\"\nmemory_max = \"infinity\"\n":                                    "",
		"limit_as = \"1G\"\noom_score_adjust = 1000\nnice = 1\nambient_capabilities = [\"CAP_BPF\"]": "",
	} {
		f := mustParse(t, head+text)
		if got := f.Workers[0].Limited(); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("got %v, want %s, of\n%s", got, want, text)
		}
	}
}

func TestWhatDoesNotContradictIsTaken(t *testing.T) {
	for _, text := range []string{
		"[worker.a]\nexec = [\"a\"]\nmemory_high = \"infinity\"\nmemory_max = \"1M\"",
		"[worker.a]\nexec = [\"a\"]\nmemory_high = \"1M\"\nmemory_max = \"1024K\"",
		"[worker.a]\nexec = [\"a\"]\nnotify_access = \"none\"\nwatchdog_sec = \"infinity\"\ntype = \"simple\"",
		"[worker.a]\nexec = [\"a\"]\non_demand = false",
		"[floor]\n[defaults]\nambient_capabilities = [\"CAP_CHOWN\"]\n[worker.a]\nentry = \"a:b\"\nambient_capabilities = []",
		"[floor]\n[defaults]\nignore_sigpipe = false\n[worker.a]\nentry = \"a:b\"\nignore_sigpipe = true\n[worker.b]\nexec = [\"b\"]",
		"[socket.a]\nlisten = [\"/a\", \"[::1]:80\"]\nreuse_port = true\nfree_bind = true",
		"[socket.a]\nlisten = \"/a\"\nreuse_port = false\nfree_bind = false",
		"[socket.a]\nlisten = [" + manyAddresses(122) + "]\n[worker.a]\nexec = [\"a\"]\nsockets = [\"a\"]\nfile_descriptor_store_max = 128",
		"start = \"connection\"\n[socket.a]\nlisten = \"80\"",
		"[worker.a]\nexec = [\"a\"]\ntasks_max = 4194304\noom_score_adjust = -1000",
	} {
		mustParse(t, text)
	}
}

func TestCapabilitiesHaveTheKernelsNumbers(t *testing.T) {
	for name, want := range map[string]int{
		"CAP_CHOWN": unix.CAP_CHOWN, "CAP_KILL": unix.CAP_KILL, "CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
		"CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN, "CAP_SYS_NICE": unix.CAP_SYS_NICE,
		"CAP_MKNOD": unix.CAP_MKNOD, "CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_SYSLOG": unix.CAP_SYSLOG,
		"CAP_AUDIT_READ": unix.CAP_AUDIT_READ, "CAP_BPF": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_LAST_CAP,
	} {
		if got, ok := fleetfile.CapabilityNumber(name); !ok || got != want {
			t.Errorf("%s: got %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"", "CAP_", "NET_RAW", "cap_chown", "CAP_ALL"} {
		if got, ok := fleetfile.CapabilityNumber(name); ok {
			t.Errorf("%q: got %d, want none", name, got)
		}
	}
}

// Each callable is named once, with the line of the key that names it first.
func TestCalls(t *testing.T) {
	f, err := fleetfile.Parse("test", "/etc/prefork/test.toml", []byte(`[floor]
preload = ["app"]
after_fork = "app:reopen"
[worker.web]
entry = "app:serve"
[worker.other]
entry = "app:serve"
[worker.io]
lifespan = "app:pool"
[worker.io.tasks]
poll = "app:poll"
beat = { entry = "app:beat" }
`), fleetfile.Host{})
	if err != nil {
		t.Fatal(err)
	}
	const file = "/etc/prefork/test.toml:"
	want := []fleetfile.Call{
		{Key: "floor.after_fork", Name: "app:reopen", Place: file + "3: floor.after_fork"},
		{Key: "worker.web.entry", Name: "app:serve", Place: file + "5: worker.web.entry"},
		{Key: "worker.io.lifespan", Name: "app:pool", Place: file + "9: worker.io.lifespan"},
		{Key: "worker.io.tasks.poll", Name: "app:poll", Place: file + "11: worker.io.tasks.poll"},
		{Key: "worker.io.tasks.beat", Name: "app:beat", Place: file + "12: worker.io.tasks.beat"},
	}
	got := f.Calls()
	slices.SortFunc(got, func(a, b fleetfile.Call) int { return strings.Compare(a.Place, b.Place) })
	slices.SortFunc(want, func(a, b fleetfile.Call) int { return strings.Compare(a.Place, b.Place) })
	if !slices.Equal(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}
