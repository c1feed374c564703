// SPDX-License-Identifier: AGPL-3.0-or-later

// Package fleetfile reads fleet files: TOML in, a checked [File] out, or
// every error of the file at once, each with line, key and remedy.
//
//	bytes ──┬─ index: where does each key stand
//	        └─ TOML decoder ── map[string]any ── walk, by the schema ── checks
//	                                             between keys ── Fleet
//
// The decoder gives no positions for keys that it does not know and stops at
// the first wrong type. So it decodes into plain maps, the schema is our own
// (see [Schema]), and a small scanner of the same text says where a key is.
//
// What a file can depend on beside its text, a [Host], is given: the processors, the
// runtime directory, the variables that override counts.
//
// Nothing here starts, binds or looks up anything: users, programs and files
// that a fleet file names are looked for when they are used. Only fleet files
// are read, by [Load] and [StartOf]; [Resolve] and [Find] look where they are.
package fleetfile
