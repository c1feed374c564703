// SPDX-License-Identifier: AGPL-3.0-or-later

package errands

// MaxPlaces is the bound that a test fills.
const MaxPlaces = maxPlaces

// Waiting is how many owners have no place.
func (p *Pool) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}
