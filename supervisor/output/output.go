// SPDX-License-Identifier: AGPL-3.0-or-later

// Package output has where lines go: those of the master ([Log]), and what workers write
// to their standard output and error ([Outputs]).
//
//	the master ── Log ──────> entries of the journal, a terminal, or standard error
//	workers ───── Outputs ──> a journal stream each, which the master never reads;
//	                          pipes, whose lines the master names for a terminal, or,
//	                          if the fleet file has log.format, for a pipe or a file;
//	                          or what the master itself has
//
// Nothing here blocks the loop: what is stopped (Ctrl-S, a journal or a pipe that nobody
// reads) costs lines of the master, which are counted, and holds workers back; where lines
// have a format, for a while only, and then it costs their lines, too.
package output

import (
	"github.com/decnet/prefork/sdnotify"
	"github.com/decnet/prefork/supervisor/internal/linux"
	"github.com/decnet/prefork/supervisor/internal/poll"
	"github.com/decnet/prefork/supervisor/policy"
)

// Outputs are where processes write to. Only the loop calls its methods.
type Outputs struct {
	log     *Log
	pipes   *pipes
	streams *streams
}

// Output is where one process writes to.
type Output struct {
	Stdout, Stderr int    // -1: where the master does
	Journal        string // JOURNAL_STREAM (systemd.exec(5)); "": it is not the journal
	once           bool   // the descriptors are for this process alone
}

// Close is called when the descriptors have been handed down, or are not wanted.
func (o Output) Close() {
	if !o.once {
		return
	}
	if o.Stderr != o.Stdout {
		linux.CloseFD(&o.Stderr)
	}
	linux.CloseFD(&o.Stdout)
}

// New finds out where standard output and error go. The source reports pipes that are to
// be read, with [Outputs.Readable]; after a wakeup [Outputs.Resume] is to be called.
func New(env sdnotify.Environment, log *Log, source poll.Source, wake *poll.Wake) *Outputs {
	stdout, stderr := sinks(log)
	return &Outputs{log: log, pipes: newPipes(stdout, stderr, source, wake), streams: newStreams(env, log)}
}

// For finds where a process writes to: a stream to the journal, pipes to the terminals
// and feeds, or what the master has. Each stream stays what it is. Its caller closes it.
func (o *Outputs) For(author Author) (Output, error) {
	if o.streams.own == "" {
		stdout, stderr, err := o.pipes.open(author)
		return Output{Stdout: stdout, Stderr: stderr, once: true}, err
	}
	s := o.streams.of(author.Name)
	to := Output{Stdout: -1, Stderr: s.fd, Journal: s.id}
	if o.streams.stdout {
		to.Stdout = s.fd
	}
	return to, nil
}

// Readable reads from a pipe.
func (o *Outputs) Readable(id uint64) { o.pipes.readable(id) }

// Resume goes on reading, where what was busy takes lines again, or is not waited for any
// more.
func (o *Outputs) Resume() { o.pipes.resume() }

// HeldUntil is when [Outputs.Resume] is to be called at the latest: no process waits longer
// for who does not read.
func (o *Outputs) HeldUntil() policy.Instant { return o.pipes.heldUntil() }

// Lost is how many lines, of processes and of the master, were lost because nobody has
// taken them.
func (o *Outputs) Lost() uint64 {
	n := o.log.lost()
	if to := o.pipes.stdout; to != nil && to != o.log.sink {
		n += to.lost()
	}
	return uint64(n)
}

// Close shows what is in the pipes. It blocks for a second at most.
func (o *Outputs) Close() {
	o.pipes.close()
	o.streams.close()
}
