// SPDX-License-Identifier: AGPL-3.0-or-later

package sdnotify

// OOBMax is the room for control messages.
const OOBMax = maxControl
