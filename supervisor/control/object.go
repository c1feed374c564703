// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/decnet/prefork/supervisor/verb"
)

// The object of a fleet, and where its slots are.
const (
	Interface     = "io.github.decnet.Prefork1"
	SlotInterface = Interface + ".Slot"
	Path          = dbus.ObjectPath("/io/github/decnet/Prefork1")
	slotsPath     = Path + "/slot"
)

// SlotPath is the path of a slot's object: what a path cannot hold is written as
// systemd does it, "web.0" as web_2e0.
func SlotPath(name string) dbus.ObjectPath {
	return slotsPath + "/" + dbus.ObjectPath(escape(name))
}

// escape writes a text with letters and digits only; another byte, or a digit that
// comes first, as _ and its code in hexadecimal.
func escape(text string) string {
	var b strings.Builder
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02x", c)
		}
	}
	return b.String()
}

const (
	busInterface            = "org.freedesktop.DBus"
	peerInterface           = "org.freedesktop.DBus.Peer"
	introspectableInterface = "org.freedesktop.DBus.Introspectable"
	propertiesInterface     = "org.freedesktop.DBus.Properties"
	managerInterface        = "org.freedesktop.DBus.ObjectManager"
)

// call is one method call, and the fleet as it was when it came.
type call struct {
	path    dbus.ObjectPath
	args    []string // those that are strings
	list    []string // the one that is a list of strings
	number  int32    // the one that is a number
	id      uint64   // the one that is a number that never repeats
	fleet   *Status  // nil unless the method needs it
	caller  Caller   // if the method needs the right
	client  *client  // nil on a bus
	backend Backend
}

// access is what a method takes before it can be answered.
type access int

const (
	accessNone   access = iota
	accessRead          // the fleet
	accessChange        // the fleet, and the right to change it
)

// method is something that can be called. There is nothing else.
type method struct {
	iface, name string
	in, out     string // signatures: of the arguments, of the types that call has; of the one result
	access      access
	answer      func(c *call) (any, *dbus.Error)
}

// methods is a function, as some answers describe all of them.
func methods() []method {
	all := []method{
		{busInterface, "Hello", "", "s", accessNone, func(*call) (any, *dbus.Error) { return ":1.1", nil }},
		{busInterface, "ListNames", "", "as", accessNone, func(*call) (any, *dbus.Error) { return []string{busInterface, Interface}, nil }},
		{busInterface, "ListActivatableNames", "", "as", accessNone, func(*call) (any, *dbus.Error) { return []string{}, nil }},
		{busInterface, "NameHasOwner", "s", "b", accessNone, func(c *call) (any, *dbus.Error) {
			return c.args[0] == busInterface || c.args[0] == Interface, nil
		}},
		{busInterface, "GetNameOwner", "s", "s", accessNone, func(*call) (any, *dbus.Error) { return ":1.0", nil }},
		{busInterface, "AddMatch", "s", "", accessRead, func(c *call) (any, *dbus.Error) {
			c.client.watch(c.fleet)
			return nil, nil
		}},
		{busInterface, "RemoveMatch", "s", "", accessNone, func(c *call) (any, *dbus.Error) {
			c.client.unwatch()
			return nil, nil
		}},
		{peerInterface, "Ping", "", "", accessNone, func(*call) (any, *dbus.Error) { return nil, nil }},
		{peerInterface, "GetMachineId", "", "s", accessNone, machineID},
		{introspectableInterface, "Introspect", "", "s", accessRead, introspection},
		{propertiesInterface, "Get", "ss", "v", accessRead, get},
		{propertiesInterface, "GetAll", "s", "a{sv}", accessRead, getAll},
		{propertiesInterface, "Set", "ssv", "", accessNone, func(*call) (any, *dbus.Error) {
			return nil, failure("PropertyReadOnly", "properties cannot be set")
		}},
		{SlotInterface, "History", "", "a(ts)", accessRead, history},
		{SlotInterface, "TaskHistory", "s", "a(ts)", accessRead, ofTask(history)},
		{managerInterface, "GetManagedObjects", "", "a{oa{sa{sv}}}", accessRead, managedObjects},
	}
	all = append(all, changeMethods()...)
	for _, name := range verb.All {
		in := ""
		if name.TakesSignal() {
			in = "i"
		}
		all = append(all, method{SlotInterface, name.Member(), in, "", accessChange, operate(name)})
		if name.TakesTask() {
			all = append(all, method{SlotInterface, name.Member() + "Task", "s", "", accessChange, ofTask(operate(name))})
		}
	}
	return all
}

// findMethod finds what a call without an interface means, too: of two that have the name,
// the one that takes such arguments. The interface of a bus is its own.
func findMethod(iface, name, signature string) (found method, ok bool) {
	for _, m := range methods() {
		if m.name == name && (iface == "" || m.iface == iface) && (!ok || found.in != signature) {
			found, ok = m, true
		}
	}
	return found, ok
}

func failure(name, format string, args ...any) *dbus.Error {
	return dbus.NewError(busInterface+".Error."+name, []any{fmt.Sprintf(format, args...)})
}

// operate carries out what changes a slot.
func operate(name verb.Name) func(c *call) (any, *dbus.Error) {
	return func(c *call) (any, *dbus.Error) {
		object, _ := c.object()
		slot, ok := object.(SlotStatus)
		if !ok {
			return nil, failure("UnknownObject", "there is no slot %s", c.path)
		}
		if err := c.backend.Operate(slot.Name, verb.Call{Name: name, Signal: int(c.number), Task: c.task()}, c.caller); err != nil {
			return nil, failure("Failed", "%v", err)
		}
		return nil, nil
	}
}

// ofTask answers what is about one of a slot's tasks: no name is not all of them.
func ofTask(answer func(c *call) (any, *dbus.Error)) func(c *call) (any, *dbus.Error) {
	return func(c *call) (any, *dbus.Error) {
		if object, _ := c.object(); c.task() == "" {
			if _, ok := object.(SlotStatus); ok {
				return nil, failure("InvalidArgs", "a task must have a name")
			}
		}
		return answer(c)
	}
}

// task is the name of the task that a call is about, "" if it is about none.
func (c *call) task() string {
	if len(c.args) == 0 {
		return ""
	}
	return c.args[0]
}

// history is told of a slot only: it is long, and seldom asked for.
func history(c *call) (any, *dbus.Error) {
	object, _ := c.object()
	slot, ok := object.(SlotStatus)
	if !ok {
		return nil, failure("UnknownObject", "there is no slot %s", c.path)
	}
	if task := c.task(); task != "" {
		return c.backend.History(slot.Name + "/" + task), nil
	}
	return c.backend.History(slot.Name), nil
}

func machineID(*call) (any, *dbus.Error) {
	id, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return nil, failure("Failed", "%v", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// object finds what stands at a path: a Fleet or a Slot, and its interface.
func (c *call) object() (object any, iface string) {
	if c.path == Path {
		return *c.fleet, Interface
	}
	for i := range c.fleet.Slots {
		if s := &c.fleet.Slots[i]; SlotPath(s.Name) == c.path {
			return *s, SlotInterface
		}
	}
	return nil, ""
}

func get(c *call) (any, *dbus.Error) {
	all, err := propertiesOf(c, func(f field) bool { return f.Name == c.args[1] })
	if err != nil {
		return nil, err
	}
	value, ok := all[c.args[1]]
	if !ok {
		return nil, failure("UnknownProperty", "there is no property %q", c.args[1])
	}
	return value, nil
}

func getAll(c *call) (any, *dbus.Error) {
	all, err := propertiesOf(c, every)
	if err != nil {
		return nil, err
	}
	return all, nil
}

func propertiesOf(c *call, chosen func(field) bool) (map[string]dbus.Variant, *dbus.Error) {
	object, iface := c.object()
	switch asked := c.args[0]; {
	case object == nil:
		return nil, failure("UnknownObject", "there is no object %s", c.path)
	case asked == "" || asked == iface:
		return properties(c.measured(object, chosen), chosen), nil
	case strings.HasPrefix(asked, busInterface) && slices.ContainsFunc(methods(), func(v method) bool { return v.iface == asked }):
		return map[string]dbus.Variant{}, nil
	default:
		return nil, failure("UnknownInterface", "%s has no interface %q", c.path, asked)
	}
}

// measured is an object, a Fleet or a Slot, with what the kernel says of it, if any
// of that is chosen.
func (c *call) measured(object any, chosen func(field) bool) any {
	if !slices.ContainsFunc(fieldsOf(reflect.TypeOf(object)), func(f field) bool { return f.measured() && chosen(f) }) {
		return object
	}
	switch object := object.(type) {
	case SlotStatus:
		f := Status{Slots: []SlotStatus{object}}
		c.backend.Measure(&f)
		return f.Slots[0]
	case Status:
		object.Slots = nil
		c.backend.Measure(&object)
		return object
	default:
		panic(fmt.Sprintf("control: cannot measure %T", object))
	}
}

// managed is what GetManagedObjects returns: by path and interface, properties.
type managed map[dbus.ObjectPath]map[string]map[string]dbus.Variant

func managedObjects(c *call) (any, *dbus.Error) {
	if c.path != "/" {
		return nil, failure("UnknownInterface", "%s has no interface %s; / has", c.path, managerInterface)
	}
	f := *c.fleet
	f.Slots = slices.Clone(f.Slots)
	c.backend.Measure(&f)
	all := managed{Path: {Interface: properties(f, every)}}
	for _, s := range f.Slots {
		all[SlotPath(s.Name)] = map[string]map[string]dbus.Variant{SlotInterface: properties(s, every)}
	}
	return all, nil
}
