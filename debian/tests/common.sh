# SPDX-License-Identifier: AGPL-3.0-or-later
# shellcheck shell=sh
# What the stories share. OLD and NEW are two versions of the package as files;
# without them apt knows one.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

fail() {
	echo "FAIL: $*" >&2
	exit 1
}

has() { # what, text, pattern
	printf '%s\n' "$2" | grep -Eq -e "$3" || fail "$1: no \"$3\" in: $2"
}

equal() { # what, got, want
	[ "$2" = "$3" ] || fail "$1: \"$2\", not \"$3\""
}

await() { # what, command...
	what=$1
	shift
	for _ in $(seq 600); do
		! "$@" >/dev/null 2>&1 || return 0
		sleep 0.1
	done
	fail "no $what within a minute"
}

install() { # file, if there are any
	if [ -n "${1:-}" ]; then
		dpkg -i "$1"
	else
		apt-get install -q -y --reinstall prefork
	fi
}

installed() {
	case $(dpkg-query -W -f '${Status}' prefork 2>/dev/null) in
	*' installed') ;;
	*) return 1 ;;
	esac
}

property() { # name, unit
	systemctl show --property="$1" --value "$2"
}

active() { # unit
	systemctl --quiet is-active "$1"
}

ask() {
	curl -sS --max-time 60 "http://127.0.0.1:${1:-8080}/"
}

# Every unit of ours that systemd knows. One that is enabled but not installed is
# known by its name alone.
units() {
	systemctl list-units --all --plain --no-legend 'prefork@*.service' 'prefork-*.socket' |
		awk '$2 != "not-found" || $3 != "inactive" { print $1 }'
}
