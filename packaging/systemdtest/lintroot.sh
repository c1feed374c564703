#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Make a root filesystem of Debian's newest suite with the linters of Python, as
# rootfs.sh makes those of the tests.
#
#   lintroot.sh DIR
set -eu

script=$0
dir=$1
. "${script%/*}/debian.sh"

make() {
	bootstrap forky ruff,mypy "$dir.part"
}

renew mmdebstrap:mmdebstrap
