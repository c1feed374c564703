# SPDX-License-Identifier: 0BSD
"""Users, groups, and what is left of their rights."""

from .base import (
    CAPABILITIES,
    GROUP,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    USER,
    Failure,
    attempt_step,
    ctypes,
    grp,
    one,
    os,
    outputs,
    pwd,
)


def find_user(orders):
    """Returns the passwd entry of user=; None without one."""
    user = one(orders, "user")
    if not user:
        return None
    if user.isdecimal():
        try:
            return pwd.getpwuid(int(user))
        except (KeyError, OverflowError):
            # As with systemd, a number needs no entry.
            return pwd.struct_passwd((user, "x", int(user), int(user), "", "/", "/bin/sh"))
    try:
        return pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise Failure(USER, f"user {user!r} does not exist") from None


def find_group(group):
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise Failure(GROUP, f"group {group!r} does not exist") from None


def change_user(floor, orders, account):
    group = one(orders, "group")
    extra = [find_group(name) for name in orders.get("extra_group", ())]
    if not (account or group or extra):
        return
    uid = account.pw_uid if account else os.getuid()
    gid = find_group(group) if group else account.pw_gid if account else os.getgid()
    if account and one(orders, "notify"):
        attempt_step(USER, f"giving the notify socket to user {uid}", give_socket, one(orders, "notify"), uid)
    groups = set(extra)
    # Without a user they are added to those that the process has.
    groups.update(os.getgrouplist(account.pw_name, gid) if account else os.getgroups())
    # An unprivileged process cannot call setgroups, even to change nothing.
    if groups - {gid} != set(os.getgroups()) - {gid}:
        attempt_step(GROUP, "supplementary groups", os.setgroups, sorted(groups))
    if account:
        give_output(orders, uid)
    attempt_step(GROUP, f"group {gid}", os.setresgid, gid, gid, gid)
    attempt_step(USER, f"user {uid}", os.setresuid, uid, uid, uid)
    if os.getresgid() != (gid,) * 3 or groups - {gid} != set(os.getgroups()) - {gid}:
        raise Failure(GROUP, "the groups did not change")
    if os.getresuid() != (uid,) * 3:
        raise Failure(USER, "the user did not change")
    floor.c.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as execve(2) does: /proc/self is its own


def give_output(orders, uid):
    """Gives the pipes that were made for this worker to its user: see the shim."""
    for fd in outputs(orders):
        try:
            if os.fstat(fd).st_mode & 0o170000 == 0o010000:  # S_IFIFO
                os.fchown(fd, uid, -1)
        except OSError:
            pass  # without the right it can still be written to


def give_socket(path, uid):
    """Makes a user the owner of a socket of this one's. No link is followed."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if found.st_mode & 0o170000 != 0o140000 or found.st_uid not in (os.geteuid(), uid):
            raise ValueError(f"{path} is not a socket of uid {os.geteuid()}")
        if found.st_uid != uid:
            os.chown(f"/proc/self/fd/{fd}", uid, -1)
    finally:
        os.close(fd)


def keep_capabilities(floor, orders):
    """Lets what the floor may do outlive the change of user, if the worker is to have some of it."""
    if "ambient" in orders and floor.c.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0:
        raise Failure(CAPABILITIES, "python3 has no module ctypes, which ambient_capabilities needs")


def set_capabilities(floor, orders):
    """Gives the worker, and what it executes, the capabilities of its orders, and no other.

    As with a program, root has all that the floor has."""
    if "ambient" in orders or floor.capable:
        numbers = [int(number) for number in orders.get("ambient", ())]
        attempt_step(CAPABILITIES, "ambient_capabilities", reduce_to, floor.c.prctl, numbers)


def reduce_to(prctl, numbers):
    if ctypes is None:
        raise OSError("python3 has no module ctypes, which capset(2) needs")
    calls = ctypes.PyDLL(None, use_errno=True)

    def check(result):
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    # capset(2): version 3, this process; effective, permitted and inheritable, twice.
    header, sets = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
    check(calls.capget(header, sets))
    wanted = sum(1 << number for number in numbers)
    for part in range(2):
        low = 3 * part
        bits = wanted >> 32 * part & 0xFFFFFFFF
        if os.geteuid() != 0:
            sets[low] = sets[low + 1] = bits
        sets[low + 2] = bits
    check(calls.capset(header, sets))  # refuses what the floor does not have
    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in numbers:
        if prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0:
            raise OSError(f"capability {number} cannot be ambient")
