// SPDX-License-Identifier: AGPL-3.0-or-later

package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

// A group is made ahead, is given once, and is given back when it is empty; who is left in
// it does not stay.
func TestPoolGivesAndTakesBack(t *testing.T) {
	tr := tree(t)
	p := NewPool(tr, false)
	if !p.On() || p.Tree() != tr {
		t.Error("there are groups")
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(tr.path, name))
		return !errors.Is(err, fs.ErrNotExist)
	}
	if !exists("p-1") || exists("p-2") {
		t.Error("one group is made ahead")
	}
	first, err := p.Take()
	if err != nil || first.Name() != "p-1" {
		t.Fatal(first, err)
	}
	second, err := p.Take() // before anything could be made ahead
	if err != nil || second.Name() != "p-2" {
		t.Fatal(second, err)
	}
	floor, err := p.TakeFloor(7)
	if err != nil || floor.Name() != "floor-7" {
		t.Fatal(floor, err)
	}
	left := spawn(t, first, "sleep 1000")
	p.Retire(nil)
	p.Retire(first)
	p.Retire(second)
	if err := p.Flush(); err != nil {
		t.Error(err)
	}
	if got := p.Retired(); !slices.Equal(got, []string{"p-1"}) || exists("p-2") || !exists("p-3") {
		t.Errorf("not given back are %q", got)
	}
	if err := left.Wait(); err == nil {
		t.Error("who was left has not been killed")
	}
	// The kernel takes a task out of its group when it has left the processor for the last
	// time, which can be after it was waited for.
	testutil.Eventually(t, "the group is given back", func() bool {
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		return len(p.Retired()) == 0 && !exists("p-1")
	})
	p.Retire(floor)
	p.Close()
	if p.On() || exists("p-3") || exists("floor-7") {
		t.Error("something is left at the end")
	}
}

// The groups of a unit that ends are left to systemd, and none is made ahead.
func TestPoolOfAUnitThatEnds(t *testing.T) {
	tr := tree(t)
	p := NewPool(tr, true)
	group, err := p.Take()
	if err != nil {
		t.Fatal(err)
	}
	p.Ending()
	p.Retire(group)
	if err := p.Flush(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tr.path, "p-1")); err != nil {
		t.Errorf("it was removed: %v", err)
	}
	if _, err := os.Stat(filepath.Join(tr.path, "p-2")); err == nil {
		t.Error("one is made ahead of nothing")
	}
	p.Close()
	if err := os.Remove(filepath.Join(tr.path, "p-1")); err != nil {
		t.Error(err)
	}
}

func TestPoolWithoutGroups(t *testing.T) {
	p := NewPool(nil, true)
	group, err := p.Take()
	if floor, floorErr := p.TakeFloor(1); p.On() || group != nil || floor != nil || err != nil || floorErr != nil {
		t.Errorf("got %v, %v, %v and %v", group, floor, err, floorErr)
	}
	p.Ending()
	if err := p.Flush(); err != nil {
		t.Error(err)
	}
	p.Close()
}
