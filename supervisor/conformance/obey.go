// SPDX-License-Identifier: AGPL-3.0-or-later

package conformance

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/gate"
)

// orderChecks are about a worker that is told what to become.
func orderChecks() []check {
	return []check{
		{"go", "a worker that is told to go closes its gate, and calls its entry", "fork", born(func(m *master, w *worker) error {
			if err := w.run("return", gate.Orders{}); err != nil {
				return err
			}
			if err := w.leaves(); err != nil {
				return err
			}
			_, err := m.exit("the worker", w.pid, w.pidfd)
			return err
		})},
		{"state", "the gate is closed before the entry is called, and the entry has its arguments and its output", "go", func(m *master) error {
			_, _, err := m.state(gate.Orders{})
			return err
		}},
		{"random", "two workers have random numbers of their own", "state", func(m *master) error {
			_, first, err := m.state(gate.Orders{})
			if err != nil {
				return err
			}
			_, second, err := m.again(gate.Orders{})
			if err == nil && first.random == second.random {
				err = fmt.Errorf("both begin with %s", first.random)
			}
			return err
		}},
		{"environment", "the environment is the zygote's, without what is about one process, and what the orders say", "state", environmentIsExact},
		{"descriptors", "descriptors are 0 to 2, then sockets and what was stored, in their order; nothing else of the zygote's", "state", descriptorsAreExact},
		{"output", "standard output and standard error are what was handed over for them", "state", func(m *master) error {
			r, stderr, err := pipe(m)
			if err != nil {
				return err
			}
			w, s, err := m.state(gate.Orders{Stderr: true}, stderr)
			if err != nil {
				return err
			}
			open := table(w.pid)
			if own := table(os.Getpid()); open[1] != own[s.stdout] || open[2] != own[r] {
				err = fmt.Errorf("they are %s and %s, want %s and %s", open[1], open[2], own[s.stdout], own[r])
			}
			return err
		}},
		{"signals", "no signal is blocked, and none is ignored but SIGPIPE and SIGXFSZ", "state", func(m *master) error {
			return m.status(gate.Orders{}, func(_ *worker, field map[string]string) error {
				blocked, _ := strconv.ParseUint(field["SigBlk"], 16, 64)
				ignored, _ := strconv.ParseUint(field["SigIgn"], 16, 64)
				ignored &^= 1<<(unix.SIGPIPE-1) | 1<<(unix.SIGXFSZ-1)
				if blocked|ignored != 0 {
					return fmt.Errorf("SigBlk is %x, SigIgn %x", blocked, ignored)
				}
				return nil
			})
		}},
		{"dir", "obeys dir", "state", func(m *master) error {
			return m.status(gate.Orders{Dir: "/usr"}, func(w *worker, _ map[string]string) error {
				return wantLink(fmt.Sprintf("/proc/%d/cwd", w.pid), "/usr")
			})
		}},
		{"umask", "obeys umask", "state", func(m *master) error {
			return m.status(gate.Orders{Umask: new(uint32(0o027))}, want("Umask", "0027"))
		}},
		{"nice", "obeys nice and oom_score_adjust", "state", func(m *master) error {
			score, err := os.ReadFile("/proc/self/oom_score_adj")
			if err != nil {
				return err
			}
			own, _ := strconv.Atoi(strings.TrimSpace(string(score)))
			nice := min(19, priority(0)+5)
			adjusted := min(1000, own+100)
			return m.status(gate.Orders{Nice: &nice, OOMScoreAdjust: &adjusted}, func(w *worker, _ map[string]string) error {
				if got := priority(w.pid); got != nice {
					return fmt.Errorf("nice is %d, want %d", got, nice)
				}
				got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", w.pid))
				if err == nil && strings.TrimSpace(string(got)) != strconv.Itoa(adjusted) {
					err = fmt.Errorf("oom_score_adj is %s, want %d", strings.TrimSpace(string(got)), adjusted)
				}
				return err
			})
		}},
		{"limits", "obeys limit", "state", func(m *master) error {
			limits := []gate.Limit{{Resource: unix.RLIMIT_NOFILE, Soft: 100, Hard: 200}, {Resource: unix.RLIMIT_CORE}}
			return m.status(gate.Orders{Limits: limits}, func(w *worker, _ map[string]string) error {
				for _, l := range limits {
					var got unix.Rlimit
					if err := unix.Prlimit(w.pid, l.Resource, nil, &got); err != nil {
						return os.NewSyscallError("prlimit", err)
					}
					if got != (unix.Rlimit{Cur: l.Soft, Max: l.Hard}) {
						return fmt.Errorf("limit %d is %d:%d, want %d:%d", l.Resource, got.Cur, got.Max, l.Soft, l.Hard)
					}
				}
				return nil
			})
		}},
		{"no-new-privileges", "obeys no_new_privileges", "state", func(m *master) error {
			return m.status(gate.Orders{NoNewPrivs: true}, want("NoNewPrivs", "1"))
		}},
		{"death-signal", "obeys death_signal, and exits if its parent is not the master that is named", "state", func(m *master) error {
			if _, _, err := m.state(gate.Orders{DeathSignal: true}); err != nil {
				return err
			}
			w, _, err := m.again(gate.Orders{DeathSignal: true, Master: 1})
			if err == nil {
				return errors.New("its entry runs, though the master is another process")
			}
			if w == nil {
				return err
			}
			_, err = m.exit("the worker", w.pid, w.pidfd)
			return err
		}},
		{"user", "obeys user, group and extra_group, and the working directory is entered after that", "state", func(m *master) error {
			if os.Geteuid() != 0 {
				return skipped("only root may change users")
			}
			o := gate.Orders{User: "65534", Group: "65533", ExtraGroups: []string{"65531"}, Dir: "/usr", DeathSignal: true}
			return m.status(o, func(_ *worker, field map[string]string) error {
				groups := strings.Fields(field["Groups"])
				if uid, gid := field["Uid"], field["Gid"]; uid != strings.Repeat("65534\t", 3)+"65534" ||
					gid != strings.Repeat("65533\t", 3)+"65533" || !slices.Contains(groups, "65531") || slices.Contains(groups, "0") {
					return fmt.Errorf("its ids are %q, its groups %q and %q", uid, gid, groups)
				}
				return nil
			})
		}},
		{"memfd", "takes orders from a memfd if they are long", "state", func(m *master) error {
			_, s, err := m.state(gate.Orders{Env: []string{"LONG=" + strings.Repeat("x", 20000)}})
			if err == nil && len(s.env["LONG"]) != 20000 {
				err = fmt.Errorf("a variable of 20000 bytes has %d", len(s.env["LONG"]))
			}
			return err
		}},
		{"entry", "an entry that does not exist is failed with a status, which is its exit status", "go", born(func(_ *master, w *worker) error {
			if err := w.run("return", gate.Orders{Entry: w.Entry + "_that_does_not_exist"}); err != nil {
				return err
			}
			_, _, err := w.fails()
			return err
		})},
		{"order", "an order that cannot be obeyed is failed with the status that stands for it", "go", born(func(_ *master, w *worker) error {
			return w.wantFailure(gate.ExitChdir, gate.Orders{Dir: "/prefork/no such folder"})
		})},
		{"missing-descriptor", "orders with fewer descriptors than names are failed", "go", born(func(_ *master, w *worker) error {
			return w.wantFailure(gate.ExitFDs, gate.Orders{Listen: []string{"a"}})
		})},
	}
}

func (w *worker) wantFailure(want int, o gate.Orders) error {
	if err := w.run("return", o); err != nil {
		return err
	}
	status, text, err := w.fails()
	if err == nil && status != want {
		err = fmt.Errorf("want failed %d, got %d: %s", want, status, text)
	}
	return err
}

// status has a worker that was told o, and looks at its /proc/PID/status.
func (m *master) status(o gate.Orders, look func(w *worker, field map[string]string) error) error {
	w, _, err := m.state(o)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.pid))
	if err != nil {
		return err
	}
	field := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		field[name] = strings.TrimSpace(value)
	}
	return look(w, field)
}

func want(name, value string) func(*worker, map[string]string) error {
	return func(_ *worker, field map[string]string) error {
		if field[name] != value {
			return fmt.Errorf("%s is %s, want %s", name, field[name], value)
		}
		return nil
	}
}

func wantLink(path, want string) error {
	got, err := os.Readlink(path)
	if err == nil && got != want {
		err = fmt.Errorf("it is %s, want %s", got, want)
	}
	return err
}

// priority is the nice of a process; getpriority(2) of the kernel returns 20 minus that.
func priority(pid int) int {
	n, _ := unix.Getpriority(unix.PRIO_PROCESS, pid) // a process of ours
	return 20 - n
}
