// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// JournalStream reports whether fd is the stream to the journal that systemd
// connected, by the device and inode of JOURNAL_STREAM. The variable alone does
// not tell: standard error may have been redirected since.
func JournalStream(env Environment, fd int) bool {
	first, second, _ := strings.Cut(env.JournalStream, ":")
	dev, errDev := strconv.ParseUint(first, 10, 64)
	ino, errIno := strconv.ParseUint(second, 10, 64)
	if errDev != nil || errIno != nil {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false
	}
	return st.Dev == dev && st.Ino == ino
}
