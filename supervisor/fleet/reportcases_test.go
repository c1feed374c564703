// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"time"

	"github.com/decnet/prefork/supervisor/policy"
	"github.com/decnet/prefork/supervisor/verb"
)

// reportCase is a step in the life of slot w.0, and what is reported of it. The
// fleet has another slot, which is ready.
type reportCase struct {
	name string
	w    policy.Worker
	to   []func(p *player) // the last one is the step
	want []line
}

func reportCases() []reportCase {
	exec, notify, demanded := execWorker("w", 1), notifyWorker(), onDemand(execWorker("w", 1))
	no, limited, sigkill := execWorker("w", 1), execWorker("w", 1), execWorker("w", 1)
	no.Policy.Restart, sigkill.Policy.KillSignal = policy.RestartNo, policy.SIGKILL
	limited.Policy.StartLimitBurst, limited.Policy.StartLimitPeriod = 1, time.Hour
	usage := Usage{MemoryPeak: 5 << 20, CPU: 3 * sec}

	ends := func(e Exited) func(p *player) {
		return send(func(p *player) Event {
			e.Proc, e.Usage = p.slot("w.0").proc, usage
			return e
		})
	}
	swept := send(func(p *player) Event { return Swept{p.slot("w.0").proc} })
	failed := send(func(p *player) Event { return SpawnFailed{p.slot("w.0").proc, "no memory"} })
	demand := send(func(*player) Event { return Demand{1} })
	stop := send(func(*player) Event { return StopRequested{"SIGTERM"} })
	byHand := func(v verb.Name) func(p *player) { return send(func(*player) Event { return operator(v) }) }
	startFirst := execWorker("w", 1)
	startFirst.Roll = policy.Rolling{Order: policy.StartFirst, Settle: sec}
	restarted := send(func(*player) Event {
		return Propose{ID: 1, Kind: ChangeRestart, Revision: 2, Slots: []string{"w.0"}, Who: "uid 0"}
	})
	aged := startFirst
	aged.Recycle.After = time.Minute
	successor := func(p *player) {
		p.send(Introduced{p.slot("w.0").next.proc, 9}, Running{p.slot("w.0").next.proc})
	}
	fleetChanges := line{"", Notice, KindChangeBegins, End{}}
	begin, ready := (*player).begin, (*player).ready
	say := func(n Notified) func(p *player) { return func(p *player) { p.say("w.0", n) } }
	does := func(steps ...func(p *player)) []func(p *player) { return steps }
	otherStops := line{"ready -> stopping", Info, KindSlotStops, End{}}
	fleetStops := line{"", Notice, KindFleetStops, End{}}
	fleetReady := line{"", Notice, KindFleetReady, End{}}

	return []reportCase{
		{"told", notify, does(introduce, begin), []line{{"", Debug, "", End{}}}},
		{"runs", exec, does(runW), []line{{"starting -> ready", Info, KindSlotReady, End{}}, fleetReady}},
		{"says READY=1", notify, does(begin, ready), []line{{"starting -> ready", Info, KindSlotReady, End{}}, fleetReady}},
		{"reloads", notify, does(begin, ready, say(Notified{Reloading: true})), []line{{"", Info, "", End{}}}},
		{
			"has reloaded", notify, does(begin, ready, say(Notified{Reloading: true}), say(Notified{Ready: true})),
			[]line{{"", Info, "", End{}}},
		},
		{
			"reloads for too long", notify,
			does(begin, ready, say(Notified{Reloading: true, Interval: policy.Forever}), due),
			[]line{{"", Warning, "", End{}}},
		},
		{"is due", exec, does(runW, crash, due), []line{{"waiting -> starting", Debug, "", End{}}}},
		{
			"finishes", exec, does(runW, ends(Exited{})),
			[]line{{"ready -> exited", Info, KindSlotExited, End{policy.Success, status0, usage, 0, 0}}},
		},
		{
			"finishes and was never heard to run", exec, does(introduce, ends(Exited{})),
			[]line{{"starting -> exited", Info, KindSlotExited, End{policy.Success, status0, usage, 0, 0}}, fleetReady},
		},
		{
			"crashes", exec, does(runW, ends(Exited{Exit: status1})),
			[]line{{"ready -> waiting", Warning, KindSlotRestarts, End{policy.ExitCode, status1, usage, 1, sec}}},
		},
		{
			"crashes again at its start", exec, does(runW, crash, due, introduce, ends(Exited{Exit: status1})),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{policy.ExitCode, status1, usage, 2, 2 * sec}}},
		},
		{
			"ends before READY=1", notify, does(begin, ends(Exited{})),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{policy.Protocol, status0, usage, 1, sec}}},
		},
		{
			"fails", no, does(runW, ends(Exited{Exit: status1})),
			[]line{{"ready -> failed", Err, KindSlotFailed, End{policy.ExitCode, status1, usage, 0, 0}}},
		},
		{
			"fails at its start", no, does(introduce, ends(Exited{Exit: status1})),
			[]line{{"starting -> failed", Err, KindSlotFailed, End{policy.ExitCode, status1, usage, 0, 0}}, fleetReady},
		},
		{
			"gets no process", exec, does(failed),
			[]line{{"starting -> waiting", Warning, KindSlotRestarts, End{policy.Resources, policy.NoExit, Usage{}, 1, sec}}},
		},
		{
			"gets no process and fails", no, does(failed),
			[]line{{"starting -> failed", Err, KindSlotFailed, End{policy.Resources, policy.NoExit, Usage{}, 0, 0}}, fleetReady},
		},
		{
			"reaches its start limit", limited, does(runW, crash, due),
			[]line{{"waiting -> failed", Err, KindSlotFailed, End{policy.StartLimitHit, policy.NoExit, Usage{}, 1, 0}}},
		},
		{
			"out of memory", exec, does(runW, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"ready -> waiting", Warning, KindSlotOOMKilled, End{policy.OOMKill, killed, usage, 1, sec}}},
		},
		{
			"out of memory, and fails", no, does(runW, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"ready -> failed", Err, KindSlotOOMKilled, End{policy.OOMKill, killed, usage, 0, 0}}},
		},
		{
			"does not start in time", exec, does(introduce, due),
			[]line{{"starting -> stopping", Info, KindSlotTimeout, End{Result: policy.Timeout}}},
		},
		{
			"does not come to its gate", exec, does(due),
			[]line{{"starting -> killing", Warning, KindSlotTimeout, End{Result: policy.Timeout}}},
		},
		{
			"does not start in time, and ends", exec, does(introduce, due, ends(Exited{})),
			[]line{{"stopping -> waiting", Warning, KindSlotRestarts, End{policy.Timeout, status0, usage, 1, sec}}},
		},
		{
			"does not start in time, and fails", no, does(introduce, due, ends(Exited{})),
			[]line{{"stopping -> failed", Err, KindSlotFailed, End{policy.Timeout, status0, usage, 0, 0}}, fleetReady},
		},
		{
			"does not start in time, nor end", exec, does(introduce, due, due),
			[]line{{"", Debug, "", End{Result: policy.Timeout}}, {"stopping -> killing", Warning, KindSlotTimeout, End{Result: policy.Timeout}}},
		},
		{
			"does not end from SIGKILL", exec, does(introduce, due, due, due),
			[]line{{"", Err, KindSlotStuck, End{Result: policy.Timeout}}},
		},
		{
			"cannot become the slot", exec, does(introduce, failed),
			[]line{{"starting -> killing", Warning, KindSlotStops, End{Result: policy.Resources}}},
		},
		{
			"is killed at its gate, and restarts", exec, does(due, ends(Exited{Exit: killed})),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{policy.Timeout, killed, usage, 1, sec}}},
		},
		{
			"is killed at its gate, and fails", no, does(due, ends(Exited{Exit: killed})),
			[]line{{"killing -> failed", Err, KindSlotFailed, End{policy.Timeout, killed, usage, 0, 0}}, fleetReady},
		},
		{
			"is stuck", notify, does(begin, ready, due),
			[]line{{"ready -> stopping", Warning, KindSlotWatchdog, End{Result: policy.Watchdog}}, {"", Debug, "", End{Result: policy.Watchdog}}},
		},
		{
			"is stuck at its start", notify, does(begin, say(Notified{Trigger: true})),
			[]line{{"starting -> stopping", Warning, KindSlotWatchdog, End{Result: policy.Watchdog}}, {"", Debug, "", End{Result: policy.Watchdog}}},
		},
		{
			"is stuck and does not end", notify, does(begin, ready, due, due),
			[]line{{"", Debug, "", End{Result: policy.Watchdog}}, {"stopping -> killing", Warning, KindSlotTimeout, End{Result: policy.Watchdog}}},
		},
		{
			"was stuck", notify, does(begin, ready, due, due, ends(Exited{Exit: killed})),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{policy.Watchdog, killed, usage, 1, sec}}},
		},
		{
			"stops by itself", notify, does(begin, ready, say(Notified{Stopping: true})),
			[]line{{"ready -> stopping", Info, KindSlotStops, End{}}},
		},
		{
			"has stopped by itself", notify, does(begin, ready, say(Notified{Stopping: true}), ends(Exited{})),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{policy.Success, status0, usage, 0, 0}}},
		},
		{
			"leaves processes", exec, does(runW, ends(Exited{Exit: status1, Left: 2})),
			[]line{{"ready -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes at its start", exec, does(introduce, ends(Exited{Left: 2})),
			[]line{{"starting -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes when it is stopped", exec, does(runW, byHand(verb.Stop), ends(Exited{Exit: termed, Left: 2})),
			[]line{{"", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes when it is stopped by SIGKILL", sigkill, does(runW, byHand(verb.Stop), ends(Exited{Exit: killed, Left: 2})),
			[]line{{"killing -> stopping", Info, KindSlotLeft, End{}}},
		},
		{
			"leaves processes that do not end from SIGTERM", exec, does(runW, leave, due),
			[]line{{"stopping -> killing", Warning, KindSlotLeft, End{}}},
		},
		{
			"leaves processes that do not end", exec, does(runW, leave, due, due),
			[]line{{"", Err, KindSlotStuck, End{}}},
		},
		{
			"left processes", exec, does(runW, ends(Exited{Exit: status1, Left: 2}), swept),
			[]line{{"stopping -> waiting", Warning, KindSlotRestarts, End{policy.ExitCode, status1, usage, 1, sec}}},
		},
		{
			"left processes that were killed", exec, does(runW, ends(Exited{Exit: status1, Left: 2}), due, swept),
			[]line{{"killing -> waiting", Warning, KindSlotRestarts, End{policy.ExitCode, status1, usage, 1, sec}}},
		},
		{
			"left processes, and has finished", exec, does(runW, leave, swept),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{policy.Success, status0, Usage{}, 0, 0}}},
		},
		{
			"left processes that were killed, and has finished", exec, does(runW, leave, due, swept),
			[]line{{"killing -> exited", Info, KindSlotExited, End{policy.Success, status0, Usage{}, 0, 0}}},
		},
		{
			"left processes when it was killed", exec, does(due, ends(Exited{Exit: killed, Left: 1})),
			[]line{{"", Warning, KindSlotLeft, End{Result: policy.Timeout}}},
		},
		{
			"gets a demand", demanded, does(demand),
			[]line{{"listening -> waiting", Debug, "", End{}}, {"waiting -> starting", Debug, "", End{}}},
		},
		{
			"listens again", demanded, does(demand, runW, ends(Exited{}), due),
			[]line{{"waiting -> listening", Info, KindSlotListens, End{}}},
		},
		{
			"waits to listen", demanded, does(demand, runW, ends(Exited{})),
			[]line{{"ready -> waiting", Info, KindSlotRestarts, End{policy.Success, status0, usage, 0, 100 * ms}}},
		},
		{
			"is stopped while it listens", demanded, does(stop),
			[]line{fleetStops, {"listening -> exited", Debug, "", End{}}, otherStops},
		},
		{
			"is stopped while it waits", exec, does(runW, crash, stop),
			[]line{fleetStops, {"waiting -> exited", Debug, "", End{}}, otherStops},
		},
		{
			"is stopped", exec, does(runW, stop),
			[]line{fleetStops, {"ready -> stopping", Info, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped by SIGKILL", sigkill, does(runW, stop),
			[]line{fleetStops, {"ready -> killing", Warning, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped at its start", exec, does(introduce, stop),
			[]line{fleetStops, {"starting -> stopping", Info, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped at its gate", exec, does(stop),
			[]line{fleetStops, {"starting -> killing", Warning, KindSlotStops, End{}}, otherStops},
		},
		{
			"is stopped twice", exec, does(runW, stop, stop),
			[]line{
				{"", Warning, "", End{}},
				{"stopping -> killing", Warning, KindSlotStops, End{}},
				{"stopping -> killing", Warning, KindSlotStops, End{}},
			},
		},
		{
			"was stopped", exec, does(runW, stop, ends(Exited{Exit: termed})),
			[]line{{"stopping -> exited", Info, KindSlotExited, End{policy.Success, termed, usage, 0, 0}}},
		},
		{
			"was stopped and is out of memory", exec, does(runW, stop, ends(Exited{Exit: killed, OOM: true})),
			[]line{{"stopping -> exited", Info, KindSlotOOMKilled, End{policy.OOMKill, killed, usage, 0, 0}}},
		},
		{
			"was killed", sigkill, does(runW, stop, ends(Exited{Exit: killed})),
			[]line{{"killing -> exited", Info, KindSlotExited, End{policy.Signalled, killed, usage, 0, 0}}},
		},
		{
			"has finished and is started by hand", exec, does(runW, ends(Exited{}), byHand(verb.Start)),
			[]line{{"exited -> waiting", Notice, "", End{}}},
		},
		{
			"has failed and is reset", no, does(runW, ends(Exited{Exit: status1}), byHand(verb.Reset)),
			[]line{{"failed -> waiting", Notice, "", End{}}},
		},
		{
			"has failed and is restarted by a change", no, does(runW, ends(Exited{Exit: status1}), restarted),
			[]line{
				fleetChanges,
				{"failed -> exited", Debug, "", End{}},
				{"waiting -> starting", Debug, "", End{}},
			},
		},
		{
			"its successor is proven", startFirst, does(runW, restarted, successor, due),
			[]line{
				{"", Info, KindSlotReplaced, End{}},
				{"ready -> stopping", Info, KindSlotStops, End{}},
				{"", Notice, KindChangeDone, End{}},
			},
		},
		{
			"is recycled", aged, does(runW, due, successor, due),
			[]line{
				{"ready -> stopping", Info, KindSlotStops, End{}},
				{"", Notice, KindSlotRecycled, End{}},
			},
		},
		{
			"its successor is none", aged, does(runW, due, func(p *player) {
				p.send(SpawnFailed{p.slot("w.0").next.proc, "no memory"})
			}),
			[]line{
				{"starting -> failed", Warning, KindSlotFailed, End{Result: policy.Resources, Exit: policy.NoExit}},
				{"", Warning, KindSlotNotRecycled, End{}},
			},
		},
		{
			"cannot be killed", sigkill, does(runW, stop, func(p *player) { p.exit("other.0", termed) }, due),
			[]line{
				{"", Err, "", End{}},
				{"killing -> failed", Err, KindSlotFailed, End{Exit: policy.NoExit}},
				{"", Notice, "", End{}},
			},
		},
	}
}
