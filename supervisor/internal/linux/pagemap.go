// SPDX-License-Identifier: AGPL-3.0-or-later

package linux

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageRegion is a run of pages of one kind (struct page_region of linux/fs.h).
type PageRegion struct {
	First, End uint64 // addresses
	Categories uint64
}

// Categories of pages that ScanPages tells apart.
const (
	PageIsFile    = 1 << 2
	PageIsPresent = 1 << 3
	PageIsSwapped = 1 << 4
	PageIsZero    = 1 << 5 // it has never been written
	PageIsHuge    = 1 << 6 // mapped as a part of a huge page
)

// pmScanArg is struct pm_scan_arg of linux/fs.h.
type pmScanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64

	inverted, mask, anyOf, returned uint64
}

const pagemapScan = 0xc0606610 // PAGEMAP_SCAN: _IOWR('f', 16, struct pm_scan_arg)

// ScanPages lists runs of the pages between two addresses that are present or swapped
// out, of the process whose /proc/PID/pagemap fd is. next is where the next call goes on:
// end, unless there was no room in into. It reads nothing of what is not mapped. The error
// wraps ENOTTY before Linux 6.7.
func ScanPages(fd int, first, end uint64, into []PageRegion) (n int, next uint64, err error) {
	var pin runtime.Pinner // the kernel gets its address as a number
	defer pin.Unpin()
	if len(into) > 0 {
		pin.Pin(unsafe.SliceData(into))
	}
	arg := pmScanArg{
		size: uint64(unsafe.Sizeof(pmScanArg{})), start: first, end: end,
		vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(into)))), vecLen: uint64(len(into)),
		anyOf:    PageIsPresent | PageIsSwapped,
		returned: PageIsFile | PageIsPresent | PageIsSwapped | PageIsZero | PageIsHuge,
	}
	err = retry(func() error {
		found, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&arg)))
		if errno != 0 {
			return errno
		}
		n = int(found)
		return nil
	})
	return n, arg.walkEnd, os.NewSyscallError("PAGEMAP_SCAN", err)
}
