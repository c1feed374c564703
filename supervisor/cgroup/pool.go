// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Pool gives each process a group of its own, where there are any. One is made ahead,
// and what was left is removed when there is time: neither is on the way from a crash to
// its successor. Its methods belong to one goroutine.
type Pool struct {
	tree    *Tree
	next    *Group // made ahead
	made    int
	retired []*Group // to be given back
	managed bool     // systemd removes them with the unit
	leave   bool     // to systemd, as the fleet ends
}

// NewPool makes a pool of a tree, which is its own then; nil is one that has no groups.
// managed says that systemd removes what is left. Groups of an earlier master are retired.
// Its owner closes it.
func NewPool(tree *Tree, managed bool) *Pool {
	p := &Pool{tree: tree, managed: managed}
	if tree != nil {
		p.retired = tree.Leftover()
	}
	return p
}

// On reports whether there are groups.
func (p *Pool) On() bool { return p.tree != nil }

// Tree is where the groups are; nil if there are none.
func (p *Pool) Tree() *Tree { return p.tree }

// Retired are the names of the groups that have not been given back.
func (p *Pool) Retired() (names []string) {
	for _, group := range p.retired {
		names = append(names, group.Name())
	}
	return names
}

// Take returns an empty group for a process, nil if there are none. Its owner retires it.
func (p *Pool) Take() (*Group, error) {
	if p.tree == nil {
		return nil, nil
	}
	next := p.next
	if next != nil {
		p.next = nil
		return next, nil
	}
	return p.makeOne()
}

func (p *Pool) makeOne() (*Group, error) {
	p.made++
	return p.tree.Make(fmt.Sprintf("p-%d", p.made))
}

// TakeFloor returns one that is named after the generation of a floor.
func (p *Pool) TakeFloor(generation int) (*Group, error) {
	if p.tree == nil {
		return nil, nil
	}
	return p.tree.Make(fmt.Sprintf("floor-%d", generation))
}

// Ending is for a fleet that stops. Before version 258 a systemd that signals the
// processes of the unit gives up on a group that is removed under its hands
// (systemctl kill), so that it keeps those of its unit.
func (p *Pool) Ending() { p.leave = p.managed }

// Retire gives a group back when nothing is left in it.
func (p *Pool) Retire(group *Group) {
	if group != nil {
		p.retired = append(p.retired, group)
	}
}

// Flush gives back what is empty, kills what is left in the others, which are tried again
// the next time, and makes a group ahead. It returns what could not be removed.
func (p *Pool) Flush() error {
	if p.tree == nil {
		return nil
	}
	var failed []error
	p.retired = slices.DeleteFunc(p.retired, func(group *Group) bool {
		err := p.give(group)
		if errors.Is(err, unix.EBUSY) {
			_ = group.Kill() // nothing in there is wanted
			return false
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("remove cgroup %s: %w", group.Name(), err))
		}
		return true
	})
	if p.next == nil && !p.leave {
		p.next, _ = p.makeOne() // who needs it will be told why it is not there
	}
	return errors.Join(failed...)
}

// give gives a group back. The error wraps EBUSY if something is left in it.
func (p *Pool) give(group *Group) error {
	if p.leave {
		return group.Leave()
	}
	return group.Remove()
}

// Close kills what is left in retired groups, and leaves the tree.
func (p *Pool) Close() {
	if p.tree == nil {
		return
	}
	p.Retire(p.next)
	for _, group := range p.retired {
		_ = group.Kill()  // whatever is left in there
		_ = p.give(group) // else systemd removes it with the unit
	}
	p.tree.Close()
	p.tree = nil
}
