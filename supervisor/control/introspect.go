// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
)

// introspection describes what stands at a path, in the XML of the D-Bus
// specification. All names in it are of letters, digits and _. It is written here,
// since a library for XML would be a good part of the master's memory.
func introspection(c *call) (any, *dbus.Error) {
	object, iface := c.object()
	children := c.children()
	var b strings.Builder
	b.WriteString(doctype + "<node>\n")
	switch {
	case object != nil:
		describe(&b, iface, object)
		for _, name := range []string{propertiesInterface, introspectableInterface, peerInterface} {
			describe(&b, name, nil)
		}
	case c.path == "/":
		for _, name := range []string{managerInterface, introspectableInterface, peerInterface} {
			describe(&b, name, nil)
		}
	case len(children) == 0 && c.path != slotsPath:
		return nil, failure("UnknownObject", "there is no object %s", c.path)
	}
	for _, name := range children {
		fmt.Fprintf(&b, " <node name=%q/>\n", name)
	}
	b.WriteString("</node>\n")
	return b.String(), nil
}

const doctype = `<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
`

// children are the next parts of the paths below this one.
func (c *call) children() (names []string) {
	below := strings.TrimSuffix(string(c.path), "/") + "/"
	paths := []dbus.ObjectPath{Path, slotsPath}
	for _, s := range c.fleet.Slots {
		paths = append(paths, SlotPath(s.Name))
	}
	for _, p := range paths {
		rest, ok := strings.CutPrefix(string(p), below)
		if name, _, _ := strings.Cut(rest, "/"); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// describe writes an interface: its methods, and the properties of the object, if it
// has any, with which of them signals tell of.
func describe(b *strings.Builder, iface string, object any) {
	fmt.Fprintf(b, " <interface name=%q>\n", iface)
	for _, v := range methods() {
		if v.iface != iface {
			continue
		}
		fmt.Fprintf(b, "  <method name=%q>\n", v.name)
		for _, kind := range types(v.in) {
			fmt.Fprintf(b, "   <arg type=%q direction=\"in\"/>\n", kind)
		}
		if v.out != "" {
			fmt.Fprintf(b, "   <arg type=%q direction=\"out\"/>\n", v.out)
		}
		b.WriteString("  </method>\n")
	}
	if iface == propertiesInterface {
		b.WriteString(`  <signal name="PropertiesChanged">
   <arg name="interface_name" type="s"/>
   <arg name="changed_properties" type="a{sv}"/>
   <arg name="invalidated_properties" type="as"/>
  </signal>
`)
	}
	if iface == managerInterface {
		b.WriteString(`  <signal name="InterfacesAdded">
   <arg name="object_path" type="o"/>
   <arg name="interfaces_and_properties" type="a{sa{sv}}"/>
  </signal>
  <signal name="InterfacesRemoved">
   <arg name="object_path" type="o"/>
   <arg name="interfaces" type="as"/>
  </signal>
`)
	}
	if object != nil {
		describeProperties(b, reflect.TypeOf(object))
	}
	b.WriteString(" </interface>\n")
}

func describeProperties(b *strings.Builder, t reflect.Type) {
	for _, field := range fieldsOf(t) {
		if field.isProperty() {
			fmt.Fprintf(b, `  <property name=%q type=%q access="read">
   <annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value=%q/>
  </property>
`, field.Name, dbus.SignatureOfType(field.Type).String(), field.emits())
		}
	}
}
