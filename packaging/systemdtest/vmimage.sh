#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-or-later
# Make the disk and the kernel of a virtual machine, or the root filesystem with
# the emulator that runs it.
#
#   vmimage.sh SUITE DIR       DIR/disk.img, DIR/vmlinuz, DIR/initrd.img
#   vmimage.sh emulator DIR    a root filesystem with QEMU 10
#
# Does nothing if DIR was made by this very script, as rootfs.sh does. Debian
# 12's own QEMU crashes the kernels of Debian 13, so that Debian 13's is used for
# all. Needs root and apt-get, and installs mmdebstrap and e2fsprogs.
set -eu

script=$0
suite=$1
dir=$2
. "${script%/*}/debian.sh"

disk() {
	root=$dir.part/root
	mkdir -p "$dir.part"
	bootstrap "$suite" systemd,systemd-sysv,dbus,python3,procps,curl,linux-image-cloud-amd64,initramfs-tools "$root"
	for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer getty.target \
		getty@tty1.service serial-getty@ttyS0.service systemd-timesyncd.service systemd-networkd.service; do
		ln -sf /dev/null "$root/etc/systemd/system/$unit"
	done
	echo '/dev/vda / ext4 defaults 0 0' >"$root/etc/fstab"
	echo 127.0.0.1 localhost >"$root/etc/hosts"
	mkdir -p "$root/opt/testbed" "$root/mnt"
	cat >"$root/opt/testbed/agent.py" <<'AGENT'
import base64, json, os, subprocess, tty

subprocess.run("ip link set lo up 2>/dev/null; mount -o ro /dev/vdb /mnt && cp -a /mnt/. / && umount /mnt;"
               " systemd-sysusers; journalctl --update-catalog; systemctl daemon-reload", shell=True)
port = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
tty.setraw(port)
out, lines = os.fdopen(port, "wb", buffering=0), os.fdopen(os.dup(port), "rb")
out.write(b"\nhello\n")
for line in lines:
    try:
        request = json.loads(line)
    except ValueError:
        continue
    done = subprocess.run(request["args"], input=base64.b64decode(request["input"]),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    reply = {"id": request["id"], "code": done.returncode, "output": base64.b64encode(done.stdout).decode()}
    reply = json.dumps(reply).encode() + b"\n"
    while reply:
        reply = reply[out.write(reply):]
AGENT
	cat >"$root/etc/systemd/system/testbed-agent.service" <<'UNIT'
[Service]
ExecStart=/usr/bin/python3 /opt/testbed/agent.py
Environment=LANG=C.UTF-8 SYSTEMD_PAGER= SYSTEMD_COLORS=0
[Install]
WantedBy=multi-user.target
UNIT
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
	ln -s ../testbed-agent.service "$root/etc/systemd/system/multi-user.target.wants/testbed-agent.service"
	cp "$root"/boot/vmlinuz-* "$dir.part/vmlinuz"
	cp "$root"/boot/initrd.img-* "$dir.part/initrd.img"
	rm -f "$root"/boot/*
	mke2fs -q -t ext4 -d "$root" "$dir.part/disk.img" 3G
	rm -rf --one-file-system "$root"
}

make() {
	if [ "$suite" = emulator ]; then
		bootstrap trixie qemu-system-x86 "$dir.part"
	else
		disk
	fi
}

renew mmdebstrap:mmdebstrap mke2fs:e2fsprogs
