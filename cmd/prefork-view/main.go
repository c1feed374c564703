// SPDX-License-Identifier: AGPL-3.0-or-later

// Prefork-view is what prefork top becomes: a live view of one fleet; and what prefork
// memory --plot hands its reports to. It is a program of its own so that the master's holds
// nothing that a terminal or a picture needs.
//
//	plot.go    reads reports, and draws each; picture.go is the picture
//	feed.go    asks the master, each second and when something has changed
//	model.go   what is known and selected; events.go and keys.go change it
//	view.go    draws that as text; table.go its table, text.go its words
//	main.go    the terminal: raw while the view runs, as it was before afterwards
//
// Only main.go and feed.go do anything; the rest is told, and can be tested.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"github.com/decnet/prefork/supervisor/control"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "plot" {
		if err := drawReports(os.Stdin, os.Stdout, os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "prefork memory: %v\n", err)
			os.Exit(1)
		}
		return
	}
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	socket, name, file := flags.String("socket", "", ""), flags.String("name", "", ""), flags.String("file", "", "")
	if len(os.Args) < 2 || os.Args[1] != "top" || flags.Parse(os.Args[2:]) != nil || flags.NArg() != 1 || *socket == "" {
		fmt.Fprintln(os.Stderr, "prefork-view: this is a part of prefork: use prefork top FLEET, or prefork memory FLEET --plot FILE")
		os.Exit(2)
	}
	// A master that comes back must be of the same fleet.
	serves := func(served, from string) bool { return served == *name && from == *file }
	if err := top(control.Address{Socket: *socket, Fleet: "fleet " + *name, Serves: serves}, flags.Arg(0)); err != nil {
		fmt.Fprintf(os.Stderr, "prefork top: %v\n", err)
		os.Exit(1)
	}
}

// top shows the fleet whose master is at an address, until it is told to quit.
func top(at control.Address, fleet string) error {
	if why := unfit(); why != "" {
		return fmt.Errorf("%s; without one: prefork status %s", why, fleet)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	now := time.Now()
	return show(&screen{
		model:   model{name: fleet, now: now, sight: sight{asked: now}, plain: !isUTF8(os.Getenv)},
		feed:    func(tell func(any)) { feed(ctx, at, tell) },
		operate: func(o operation) error { return carryOut(ctx, at, o) },
	})
}

// show has the library draw a screen, until it is told to quit.
func show(s *screen) error {
	p := tea.NewProgram(s, tea.WithFPS(framesPerSecond))
	s.tell = func(what any) { p.Send(what) }
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP) // the library takes SIGTERM and SIGINT
	defer signal.Stop(hangup)
	go func() {
		<-hangup
		p.Quit()
	}()
	_, err := p.Run()
	if errors.Is(err, tea.ErrInterrupted) {
		return nil // SIGINT is another way to quit
	}
	return err
}

// unfit says why there can be no view here, or nothing.
func unfit() string {
	for _, file := range []*os.File{os.Stdin, os.Stdout} {
		if _, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS); err != nil {
			return "a view needs a terminal"
		}
	}
	switch term := os.Getenv("TERM"); term {
	case "", "dumb":
		return fmt.Sprintf("a view needs a terminal that can move its cursor, and TERM is %q", term)
	}
	return ""
}

// framesPerSecond bounds how often the terminal is written to; the library wakes
// as often. A key is answered within 50 ms.
const framesPerSecond = 20

// screen connects the model with the library, which calls one method at a time.
type screen struct {
	model

	feed    func(tell func(any)) // runs until the program ends
	operate func(operation) error
	tell    func(any)
}

type (
	tick time.Time
	done struct {
		operation operation
		err       error
	}
)

func everySecond() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tick(t) })
}

// Init starts what the view lives from. The library restores the terminal if one
// of these panics.
func (s *screen) Init() tea.Cmd {
	return tea.Batch(everySecond(), func() tea.Msg {
		s.feed(s.tell)
		return nil
	})
}

// Update implements [tea.Model].
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	s.now = time.Now()
	switch msg := msg.(type) {
	case tick:
		return s, everySecond()
	case sampled:
		s.see(msg.fleet, msg.at)
	case missed:
		s.lose(msg.why, msg.at)
	case done:
		s.did(msg.operation, msg.err)
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return s, s.obey(s.key(msg.String(), msg.Key().Text))
	}
	return s, nil
}

func (s *screen) obey(w want) tea.Cmd {
	switch {
	case w.quit:
		return tea.Quit
	case w.suspend:
		return tea.Suspend
	case w.operate != nil:
		return func() tea.Msg { return done{*w.operate, s.operate(*w.operate)} }
	default:
		return nil
	}
}

// View implements [tea.Model].
func (s *screen) View() tea.View {
	v := tea.NewView(s.frame())
	v.AltScreen = true
	return v
}
