// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"encoding/binary"
	"errors"
)

// message is what a client sends, as far as it matters: a method call that has
// strings as its arguments. It is read here, since a library's reader believes
// what a message says of the lengths in it, and would make room for 4 GB.
type message struct {
	kind, flags byte
	serial      uint32
	path        string
	iface       string
	member      string
	signature   string
	body        cursor
}

// The types and flags of messages, and the codes of header fields, that matter.
const (
	methodCall      = 1
	noReplyExpected = 1

	fieldPath      = 1
	fieldInterface = 2
	fieldMember    = 3
	fieldSignature = 8
)

const (
	fixedSize = 16 // bytes of the header before the array of fields, its length included
	maxNumber = 1 << 20
)

var errMessage = errors.New("not a message that a call could be")

// lengthOf reads the fixed part of a header: the whole message has so many bytes.
func lengthOf(head []byte) (length uint64, err error) {
	order, err := orderOf(head[0])
	if err != nil {
		return 0, err
	}
	body, fields := uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[12:]))
	return fixedSize + (fields+7)/8*8 + body, nil
}

func orderOf(mark byte) (binary.ByteOrder, error) {
	switch mark {
	case 'l':
		return binary.LittleEndian, nil
	case 'B':
		return binary.BigEndian, nil
	default:
		return nil, errMessage
	}
}

// parse reads a message of the length that its head says.
func parse(text []byte) (m message, err error) {
	order, err := orderOf(text[0])
	if err != nil {
		return m, err
	}
	m.kind, m.flags, m.serial = text[1], text[2], order.Uint32(text[8:])
	if text[3] != 1 || m.serial == 0 {
		return m, errMessage
	}
	end := fixedSize + int(order.Uint32(text[12:]))
	fields := cursor{text: text[:end], at: fixedSize, order: order}
	for fields.at < end && fields.err == nil {
		m.field(&fields)
	}
	m.body = cursor{text: text[(end+7)/8*8:], order: order}
	return m, fields.err
}

// field reads one header field: its code, and a variant.
func (m *message) field(c *cursor) {
	c.align(8)
	code, kind := c.byte(), c.signature()
	var value string
	switch kind {
	case "s", "o":
		value = c.string()
	case "g":
		value = c.signature()
	case "u":
		c.align(4)
		c.take(4)
	default:
		c.err = errMessage
	}
	switch code {
	case fieldPath:
		m.path = value
	case fieldInterface:
		m.iface = value
	case fieldMember:
		m.member = value
	case fieldSignature:
		m.signature = value
	}
}

// cursor reads the parts of a message one after the other. After an error it
// reads nothing.
type cursor struct {
	text  []byte
	at    int
	order binary.ByteOrder
	err   error
}

func (c *cursor) take(n int) []byte {
	if c.err != nil || n < 0 || n > len(c.text)-c.at {
		c.err = errMessage
		return nil
	}
	c.at += n
	return c.text[c.at-n : c.at]
}

// align skips to a multiple of n bytes, which is one of 1, 2, 4, 8.
func (c *cursor) align(n int) { c.take(-c.at & (n - 1)) }

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) int32() int32 {
	c.align(4)
	if b := c.take(4); b != nil {
		return int32(c.order.Uint32(b))
	}
	return 0
}

func (c *cursor) uint64() uint64 {
	c.align(8)
	if b := c.take(8); b != nil {
		return c.order.Uint64(b)
	}
	return 0
}

// strings reads an array of strings: its length in 4 bytes, and each of them.
func (c *cursor) strings() (all []string) {
	length := int(c.int32())
	if c.err != nil || length < 0 || length > len(c.text)-c.at {
		c.err = errMessage
		return nil
	}
	for end := c.at + length; c.at < end && c.err == nil; {
		all = append(all, c.string())
	}
	return all
}

// string reads a string or a path: its length in 4 bytes, itself and a NUL.
func (c *cursor) string() string {
	c.align(4)
	if b := c.take(4); b != nil {
		return c.terminated(int(min(c.order.Uint32(b), maxNumber)))
	}
	return ""
}

// signature is like a string, with its length in 1 byte.
func (c *cursor) signature() string { return c.terminated(int(c.byte())) }

func (c *cursor) terminated(n int) string {
	b := c.take(n + 1)
	if b == nil || b[n] != 0 {
		c.err = errMessage
		return ""
	}
	return string(b[:n])
}
