// SPDX-License-Identifier: AGPL-3.0-or-later

package disposal

// MaxPlaces is the bound that a test fills.
const MaxPlaces = maxPlaces

// Waiting is how many owners have no place.
func (d *Disposal) Waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}
