// SPDX-License-Identifier: AGPL-3.0-or-later

package memory

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/decnet/prefork/supervisor/internal/text"
)

// Objects are those of a floor that lie in pages which some of its workers have written,
// as a probe lists them (package zygote). They are for display: user code made them.
type Objects struct {
	Interpreter string // "3.14.2"
	Problem     string // why there is no list, for this interpreter

	keys   []string // of the floor that are on: immortal, gc_freeze, warm, repack
	sorted []object
	owners []string
}

// object is one, or the table that one has elsewhere.
type object struct {
	address uint64
	size    uint64
	header  uint64 // bytes before it that are the collector's
	kind    byte
	owner   int // into owners
}

// Kinds of objects, as the probe writes them.
const (
	ofCode  = 'c'
	ofType  = 't'
	ofTable = 'd' // what a dict, list, set or bytearray holds
	ofOther = 'o'
)

// The bounds of a list. A floor of 10 GB has fewer objects in its written pages.
const (
	maxObjects   = 20_000_000
	maxOwners    = 100_000
	maxOwner     = 128 // bytes of a name
	maxOneObject = 1 << 40
)

// ReadObjects reads a probe's answer to its end:
//
//	python 3.14.2 immortal warm     the interpreter, and which keys of the floor are on
//	m os.path                       the next owner, counted from 0
//	o 7f3a5c001040 72 16 c 0        address, size, header, kind, owner
//	end
//
// or, after the first line, "unable TEXT".
func ReadObjects(from io.Reader) (*Objects, error) {
	o := &Objects{}
	lines := bufio.NewScanner(from)
	for first := true; lines.Scan(); first = false {
		line := lines.Text()
		word, rest, _ := strings.Cut(line, " ")
		var err error
		switch {
		case first && word == "python":
			version, keys, _ := strings.Cut(rest, " ")
			o.Interpreter, o.keys = text.OneLine(version, maxOwner), strings.Fields(keys)
		case first:
			err = errors.New("it does not begin with its interpreter")
		case word == "unable":
			o.Problem = text.OneLine(rest, maxOwner)
			return o, nil
		case word == "m" && len(o.owners) < maxOwners:
			o.owners = append(o.owners, text.OneLine(rest, maxOwner))
		case word == "o" && len(o.sorted) < maxObjects:
			err = o.add(strings.Fields(rest))
		case word == "end":
			slices.SortFunc(o.sorted, func(a, b object) int {
				if a.address < b.address {
					return -1
				}
				return 1
			})
			return o, nil
		default:
			err = errors.New("not a line of it")
		}
		if err != nil {
			return nil, fmt.Errorf("the list of the floor's objects: %.80q: %w", line, err)
		}
	}
	return nil, fmt.Errorf("the list of the floor's objects: %w", cutShort(lines.Err()))
}

func cutShort(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errObject = errors.New("not an object")

func (o *Objects) add(fields []string) error {
	if len(fields) != 5 || len(fields[3]) != 1 {
		return errObject
	}
	address, err := strconv.ParseUint(fields[0], 16, 64)
	if err != nil {
		return errObject
	}
	var numbers [3]uint64
	for i, field := range []string{fields[1], fields[2], fields[4]} {
		if numbers[i], err = strconv.ParseUint(field, 10, 63); err != nil || numbers[i] > maxOneObject {
			return errObject
		}
	}
	if numbers[2] >= uint64(len(o.owners)) || numbers[1] > address || address+numbers[0] < address {
		return errObject
	}
	o.sorted = append(o.sorted, object{address: address, size: numbers[0], header: numbers[1], kind: fields[3][0], owner: int(numbers[2])})
	return nil
}

// at is the object that an address is in, nil if it is in none that is known.
func (o *Objects) at(address uint64) *object {
	const headers = 64 // no object has more before it
	i, _ := slices.BinarySearchFunc(o.sorted, address+headers, func(x object, a uint64) int {
		if x.address <= a {
			return -1
		}
		return 1
	})
	for j := i - 1; j >= 0 && j >= i-8; j-- { // of a few that begin nearby
		if x := &o.sorted[j]; x.address-x.header <= address && address < x.address+x.size {
			return x
		}
	}
	return nil
}
