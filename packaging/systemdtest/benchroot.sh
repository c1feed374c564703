#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Make the root filesystem of the benchmarks: one that rootfs.sh made, and the
# peers that prefork is measured beside. Tests do not need them.
#
#   benchroot.sh BASE DIR
#
# It is made again when this script or BASE changes.
set -eu

script=$0
base=$1
dir=$2
. "${script%/*}/debian.sh"
fingerprint=$(cat "$base/.testbed" "$script" | sha256sum | cut -d ' ' -f 1)

peers="uwsgi-core uwsgi-plugin-python3 supervisor s6"

make() {
	cp -a --reflink=auto "$base/." "$dir.part"
	rm -f "$dir.part/.testbed"
	# apt runs here, on the packages there: nothing of theirs is needed to get them.
	inside="-o Dir=$dir.part -o Dir::State::status=$dir.part/var/lib/dpkg/status -o APT::Sandbox::User=root
		-o Acquire::Check-Valid-Until=false -o APT::Install-Recommends=false
		-o DPkg::Chroot-Directory=$dir.part -o Dpkg::Use-Pty=0"
	# shellcheck disable=SC2086 # lists of words
	{
		apt-get -q $inside update
		DEBIAN_FRONTEND=noninteractive apt-get -q -y $inside install $peers
	} >&2
	rm -rf "$dir.part/var/cache/apt/archives" "$dir.part/var/lib/apt/lists"
	for unit in supervisor.service uwsgi.service; do
		ln -sf /dev/null "$dir.part/etc/systemd/system/$unit"
	done
}

renew
