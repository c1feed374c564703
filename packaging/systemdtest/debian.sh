# SPDX-License-Identifier: AGPL-3.0-or-later
# What rootfs.sh and vmimage.sh share. They set script, suite and dir, and define
# make, which makes "$dir.part".

say() {
	echo "${script##*/}: $*" >&2
}

# The checksum of what makes a root filesystem.
fingerprint=$(cat "$script" "${script%/*}/debian.sh" | sha256sum | cut -d ' ' -f 1)

fresh() {
	[ -r "$dir/.testbed" ] && grep -qx "script $fingerprint" "$dir/.testbed"
}

# The first apt source of this machine that is Debian's main archive.
mirror() {
	# shellcheck disable=SC2016 # apt expands these
	apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' |
		awk '$2 == "Debian" && $1 !~ /security/ { print $1; exit }'
}

# Installs these tools, command:package, one run at a time: apt and dpkg do not
# wait in turn.
tools() {
	need=
	for tool in "$@"; do
		command -v "${tool%:*}" >/dev/null || need="$need ${tool#*:}"
	done
	[ -n "$need" ] || [ -z "$(mirror)" ] || return 0
	apt-get update -q >&2
	[ -n "$need" ] || return 0
	say "installing$need"
	# shellcheck disable=SC2086 # a list of package names
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $need >&2
}

bootstrap() { # suite, packages, directory
	url=$(mirror)
	if [ -z "$url" ]; then
		say "no Debian mirror in the apt sources of this machine"
		exit 1
	fi
	# A suite that is not released yet may have an expired Release file.
	mmdebstrap --quiet --variant=minbase --include="$2" \
		--aptopt='Acquire::Check-Valid-Until "false"' \
		--aptopt='APT::Install-Recommends "false"' \
		"$1" "$3" "$url" >&2
	rm -rf "$3/var/cache/apt/archives" "$3/var/lib/apt/lists"
}

# Runs make, if $dir is not as this script would make it.
renew() { # tools
	! fresh || exit 0
	mkdir -p "$(dirname "$dir")"
	exec 8>"$(dirname "$dir")/tools.lock"
	flock 8
	tools "$@"
	exec 8>&-
	exec 9>"$dir.lock"
	flock 9
	# Another run may have made it meanwhile.
	! fresh || exit 0
	say "making $dir"
	rm -rf --one-file-system "$dir.part"
	make
	printf 'script %s\nmade %s\n' "$fingerprint" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$dir.part/.testbed"
	rm -rf --one-file-system "$dir"
	mv "$dir.part" "$dir"
}
