#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Remove what a test leaves behind, once the test process is done with it.
#
#   guard.sh DIR [CGROUP...]
#
# Standard input is a pipe that ends when it is. Descriptor 3 is the shared lock
# on the cached root filesystem, held as long as this script runs.
set -u

dir=$1
shift
read -r _ || :

for cgroup; do
	[ ! -e "$cgroup/cgroup.kill" ] || echo 1 >"$cgroup/cgroup.kill"
done
for cgroup; do
	# A killed process stays in its cgroup until it is really gone.
	for _ in $(seq 200); do
		[ -e "$cgroup" ] || break
		find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
		sleep 0.05
	done
done
rm -rf --one-file-system "$dir"
