// SPDX-License-Identifier: AGPL-3.0-or-later

// Command bench measures prefork side by side with what people use instead, in
// one run: make bench. It judges nothing: what is slow on a busy machine is not
// wrong, and the tables say how busy it was.
//
//	make bench ── go test ── a machine with systemd (systemdtest.Bench)
//	                │         └─ bench -json -     measures, one system at a time
//	                │             ├─ peer          starts, stops and rolls systems
//	                │             └─ proc          memory, time and switches of processes
//	                └─ report                      tables, JSON, plots
//
// # Rules
//
// All systems run the same interpreter, import the same modules (peer/python/floor.py,
// about 100 MB) and have the same entry (peer/python/app.py): accept, read, answer.
// gunicorn and uwsgi bring an HTTP server and call the same through WSGI. Systems
// take turns: A B C, then B C A, and so on. A figure is the median of its samples;
// beside it are the least and the most, or with 20 samples and more the first
// and the last decile. A peer that cannot do something has a "-" there, and a note
// that says why.
//
// Times are from one clock, CLOCK_MONOTONIC, which workers read in the first line of
// their entry. Memory is what smaps_rollup says, in kB of 1024 bytes: private is
// Private_Clean and Private_Dirty, a process's share of everything is Pss. RSS is
// never looked at. Pages that processes outside share, such as a library that
// another run maps, count less: one run at a time.
//
// # Topics
//
//	kill      all workers but one are kept busy; that one gets SIGKILL and a client
//	          connects at once: only the successor can answer. No backoff. A victim
//	          is 1.5 s old at least, since supervisord and s6 wait for younger ones
//	memory    8 idle workers, 4 s after the last was born; then again after each has
//	          run gc.collect(). Pss is summed over supervisor, floor, spare, workers
//	shop      each of 8 workers answers 300 requests of a Django and SQLAlchemy
//	          application through WSGI, within its process; then it collects
//	idle      context switches of all threads of the supervisor in 20 s
//	launch    from the start of the supervisor until 8 workers hold a connection each
//	crash     two workers that end at once with status 1, 10 s, each system's
//	          usual policy, counted from the first boot
//	load      4 clients, one connection after the other, one worker, 3 s each turn
//	fairness  64 clients, 8 workers: whom the kernel gives the connections
//	roll      all of 8 workers are replaced under load of 4 clients; a request fails
//	          if its connection is refused or ends without the answer
//	count     1, 8 and 64 workers of the floor
//	slots     10, 100 and 1,000 idle workers: start, all get SIGKILL at once, stop
//	looks     prefork's master with 100 slots, before and after 20 times status and
//	          metrics
//
// # Use
//
//	make bench                                   # all of it: two hours and a half
//	make bench BENCH='-quick'                    # does everything work? four minutes
//	make bench BENCH='-only kill,memory -peers prefork,gunicorn-preload'
//	make bench BENCH='-markdown packaging/bench/RESULTS.md'
//	make bench BENCH='-only count,slots -add dist/bench/results.json'
//	go run ./packaging/bench -from dist/bench/results.json -markdown FILE
//
// Tables, plots and every sample are in dist/bench. The variable
// PREFORK_BENCH_EARLIER names an earlier prefork, to measure it beside this one.
package main
