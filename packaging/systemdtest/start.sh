#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Become the systemd-nspawn of one machine.
#
#   start.sh DIR LOWER NAME [CGROUP...]
#
# Runs in a mount namespace of its own. DIR/upper has what the test put on top
# of the cached root filesystem LOWER, which is never written to.
set -eu

dir=$1
lower=$2
name=$3
shift 3

# systemd-nspawn --keep-unit makes its cgroups below the one it is in: two
# machines in the same one would share theirs.
for cgroup; do
	echo $$ >"$cgroup/cgroup.procs"
done

mkdir "$dir/work" "$dir/root"
if ! mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"; then
	echo "start.sh: no overlay here, copying $lower"
	cp -a --reflink=auto "$lower/." "$dir/root"
	cp -a "$dir/upper/." "$dir/root"
fi

export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --register=no --keep-unit --boot \
	--directory="$dir/root" --machine="$name" --private-network \
	--resolv-conf=off --timezone=off --link-journal=no --console=read-only
