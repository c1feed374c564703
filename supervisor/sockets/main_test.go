// SPDX-License-Identifier: AGPL-3.0-or-later

package sockets

import (
	"testing"

	"github.com/decnet/prefork/supervisor/internal/testutil"
)

func TestMain(m *testing.M) { testutil.Main(m, map[string]func(){"sockets": socketsChild}) }
