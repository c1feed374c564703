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

suite=$1
dir=$2

# One list for all suites, so that a test means the same thing on each.
system=systemd,systemd-sysv,dbus,python3,iproute2,procps,polkitd,curl,ca-certificates
floor=python3-numpy,python3-django,python3-sqlalchemy,python3-aiohttp,python3-requests,python3-cryptography
clients=uvicorn,gunicorn,nginx-light

say() {
	echo "rootfs.sh: $*" >&2
}

fingerprint=$(sha256sum <"$0" | cut -d ' ' -f 1)

fresh() {
	[ -r "$dir/.testbed" ] && grep -qx "script $fingerprint" "$dir/.testbed"
}

# The first apt source of this machine that is Debian's main archive.
mirror() {
	# shellcheck disable=SC2016 # apt expands these
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' |
		awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }'
}

# Installs the tools, one run at a time: apt and dpkg do not wait in turn.
tools() {
	need=
	command -v mmdebstrap >/dev/null || need="$need mmdebstrap"
	command -v systemd-nspawn >/dev/null || need="$need systemd-container"
	[ -n "$need" ] || [ -z "$(mirror)" ] || return 0
	apt-get update -q >&2
	[ -n "$need" ] || return 0
	say "installing$need"
	# shellcheck disable=SC2086 # a list of package names
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $need >&2
}

make() {
	url=$(mirror)
	if [ -z "$url" ]; then
		say "no Debian mirror in the apt sources of this machine"
		exit 1
	fi
	say "making $dir: $suite with $system,$floor,$clients"
	rm -rf --one-file-system "$dir.part"
	# A suite that is not released yet may have an expired Release file.
	mmdebstrap --quiet --variant=minbase \
		--include="$system,$floor,$clients" \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='APT::Install-Recommends "false"' \
		"$suite" "$dir.part" "$url" >&2
	# Services that the packages enable are not what is tested.
	for unit in nginx.service console-getty.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer; do
		ln -sf /dev/null "$dir.part/etc/systemd/system/$unit"
	done
	rm -rf "$dir.part/var/cache/apt/archives" "$dir.part/var/lib/apt/lists"
	printf 'script %s\nmade %s\n' "$fingerprint" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$dir.part/.testbed"
	rm -rf --one-file-system "$dir"
	mv "$dir.part" "$dir"
}

! fresh || exit 0
mkdir -p "$(dirname "$dir")"
exec 8>"$(dirname "$dir")/tools.lock"
flock 8
tools
exec 8>&-
exec 9>"$dir.lock"
flock 9
# Another run may have made it meanwhile.
fresh || make
