// SPDX-License-Identifier: AGPL-3.0-or-later

package fleetfile

import _ "embed" // for the template

//go:embed init.toml
var template string

// Template returns a fleet file to begin with: it works as it is, and names and
// explains every key that there is.
func Template() string { return template }
