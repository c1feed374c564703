// SPDX-License-Identifier: AGPL-3.0-or-later

package control

import (
	"fmt"
	"io"
	"net"
)

// wholeMessages is a client's connection of which only whole messages are read: the library
// panics if a connection ends within one, as it does when its owner closes it while a
// signal comes. It bounds them, too: the library makes room for what a message says of its
// length. What comes before the first message is text, and is read as it is.
type wholeMessages struct {
	net.Conn
	rest []byte // of the message that is being read
}

// maxAnswer is above what a fleet of the most slots there can be says, in bytes.
const maxAnswer = 64 << 20

func (c *wholeMessages) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// next reads a message, or one byte of text.
func (c *wholeMessages) next() error {
	head := make([]byte, fixedSize)
	if _, err := io.ReadFull(c.Conn, head[:1]); err != nil {
		return err
	}
	if _, err := orderOf(head[0]); err != nil { // of text
		c.rest = head[:1]
		return nil
	}
	if _, err := io.ReadFull(c.Conn, head[1:]); err != nil {
		return err
	}
	length, err := lengthOf(head)
	if err != nil {
		return err
	}
	if length > maxAnswer {
		return fmt.Errorf("the master sends a message of %d bytes", length)
	}
	whole := make([]byte, length)
	copy(whole, head)
	if _, err := io.ReadFull(c.Conn, whole[fixedSize:]); err != nil {
		return err
	}
	c.rest = whole
	return nil
}
