// SPDX-License-Identifier: AGPL-3.0-or-later

package fleet

import (
	"reflect"
	"slices"
	"unsafe"
)

// clone copies a fleet, so that a second one can be given the same event.
func clone(f *Fleet) *Fleet {
	acts := f.acts
	f.acts = nil
	defer func() { f.acts = acts }()
	return copyOf(reflect.ValueOf(f), map[unsafe.Pointer]reflect.Value{}).Interface().(*Fleet)
}

// copyOf copies a value with all that it points to, once each.
func copyOf(v reflect.Value, seen map[unsafe.Pointer]reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		if c, ok := seen[v.UnsafePointer()]; ok && c.Type() == v.Type() {
			return c
		}
		c := reflect.New(v.Type().Elem())
		seen[v.UnsafePointer()] = c
		c.Elem().Set(copyOf(v.Elem(), seen))
		return c
	case reflect.Struct:
		c := reflect.New(v.Type()).Elem()
		for i := range v.NumField() {
			set(c.Field(i), copyOf(open(v.Field(i)), seen))
		}
		return c
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			c.Index(i).Set(copyOf(open(v.Index(i)), seen))
		}
		return c
	case reflect.Map:
		c := reflect.MakeMap(v.Type())
		for _, key := range v.MapKeys() {
			c.SetMapIndex(key, copyOf(v.MapIndex(key), seen))
		}
		return c
	case reflect.Array:
		c := reflect.New(v.Type()).Elem()
		for i := range v.Len() {
			c.Index(i).Set(copyOf(v.Index(i), seen))
		}
		return c
	default:
		return v
	}
}

// open makes a field that is not exported readable, and set writes one.
func open(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	return v
}

func set(field, v reflect.Value) { open(field).Set(v) }

// same compares two fleets and what they did; nil and empty slices are the same.
func same(a, b *Fleet) bool {
	x, y := clone(a), clone(b)
	return reflect.DeepEqual(x, y)
}

func sameActions(a, b []Action) bool {
	return slices.EqualFunc(a, b, func(x, y Action) bool { return reflect.DeepEqual(x, y) })
}
