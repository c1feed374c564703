#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Make a Debian root filesystem with systemd and what the tests run in it.
#
#   rootfs.sh SUITE DIR
#
# Does nothing if DIR was made by this very script: DIR/.testbed has its
# checksum and the date. A changed package list so makes a new one; to renew
# the packages, remove DIR. DIR appears only when it is complete: an interrupted
# run leaves DIR.part, which the next run removes. DIR.lock is held exclusively
# here and shared by whoever uses DIR, so that it is never replaced under a
# running container.
#
# The mirror is the one that this machine's own apt uses. Needs root and
# apt-get, and installs mmdebstrap and systemd-container if they are missing.
set -eu

script=$0
suite=$1
dir=$2
. "${script%/*}/debian.sh"

# One list for all suites, so that a test means the same thing on each; only
# OpenTelemetry is in the newest alone.
system=systemd,systemd-sysv,dbus,python3,iproute2,procps,polkitd,curl,ca-certificates
floor=python3-numpy,python3-django,python3-sqlalchemy,python3-aiohttp,python3-requests,python3-cryptography
forkers=python3-gevent,python3-grpcio
clients=uvicorn,gunicorn,nginx-light,ruby
[ "$suite" != forky ] || forkers=$forkers,python3-opentelemetry-sdk

make() {
	bootstrap "$suite" "$system,$floor,$forkers,$clients" "$dir.part"
	# Services that the packages enable are not what is tested.
	for unit in nginx.service console-getty.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
		ln -sf /dev/null "$dir.part/etc/systemd/system/$unit"
	done
}

renew mmdebstrap:mmdebstrap systemd-nspawn:systemd-container
