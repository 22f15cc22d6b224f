"""A machine for one case: this one's programs, an image's accounts and settings, and what firmware and kernel show.

Everything is in namespaces of the case's own and gone when its process ends. As root the tree is an overlay of this
machine's whole tree, so every tool is real and may change whatever it likes. Without privileges a user namespace has
but one user, so nothing of root's can be changed: there /etc is a copy and /var is empty, which is enough for what
stops before accounts are made. In both, the image's part does not depend on the machine that the tests run on: it has
the accounts of a fresh Debian, nobody's home, and as root the program at a place of its own, wherever the clone is.
"""

from __future__ import annotations

import compileall
import errno
import fcntl
import glob
import os
import shutil
import socket
import struct
import subprocess
import sys
import tty
from contextlib import suppress
from copy import copy
from typing import BinaryIO, NamedTuple

import minprov
from minprov.machine.identity import AZURE_CHASSIS_ASSET_TAG, swap_byte_order

from .linux import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    add_address,
    bind,
    detach,
    mount,
    switch_interface,
    unshare,
)
from .sandbox import Sandbox

HOSTNAME = "image"
WIRESERVER, IMDS = "168.63.129.16", "169.254.169.254"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# Of Debian's, what the rules of a case can depend on.
SSHD_CONFIG = """\
Include /etc/ssh/sshd_config.d/*.conf
UsePAM yes
Subsystem sftp internal-sftp
"""
# Where other provisioning agents are enabled: continuous integration may itself run on Azure.
OTHER_AGENTS = ("multi-user.target.wants/walinuxagent.service", "multi-user.target.wants/waagent.service")
NOT_THE_IMAGES = (
    "etc/adduser.conf",
    "etc/minprov",
    "etc/waagent.conf",
    "root/.ssh",
    "var/lib/hyperv",
    "var/lib/minprov",
    "var/lib/waagent",
)
HIDDEN = {True: ("/home",), False: ("/etc", "/mnt", "/var")}
"""Directories of which a machine has its own, with privileges and without."""
PROGRAM = "/opt/minprov-tests"
"""Where a machine has the virtual environment and the package; its users may read them, whoever may read the clone."""

# The accounts of base-passwd, which have the same numbers on every Debian, and one for sshd; others are the host's own.
USERS = """\
root:0:0:/root:/bin/bash
daemon:1:1:/usr/sbin:/usr/sbin/nologin
bin:2:2:/bin:/usr/sbin/nologin
sys:3:3:/dev:/usr/sbin/nologin
sync:4:65534:/bin:/bin/sync
games:5:60:/usr/games:/usr/sbin/nologin
man:6:12:/var/cache/man:/usr/sbin/nologin
lp:7:7:/var/spool/lpd:/usr/sbin/nologin
mail:8:8:/var/mail:/usr/sbin/nologin
news:9:9:/var/spool/news:/usr/sbin/nologin
uucp:10:10:/var/spool/uucp:/usr/sbin/nologin
proxy:13:13:/bin:/usr/sbin/nologin
www-data:33:33:/var/www:/usr/sbin/nologin
backup:34:34:/var/backups:/usr/sbin/nologin
list:38:38:/var/list:/usr/sbin/nologin
irc:39:39:/run/ircd:/usr/sbin/nologin
sshd:100:65534:/run/sshd:/usr/sbin/nologin
nobody:65534:65534:/nonexistent:/usr/sbin/nologin
"""
GROUPS = """\
root:0 daemon:1 bin:2 sys:3 adm:4 tty:5 disk:6 lp:7 mail:8 news:9 uucp:10 man:12 proxy:13 kmem:15 dialout:20 fax:21
voice:22 cdrom:24 floppy:25 tape:26 sudo:27 audio:29 dip:30 www-data:33 backup:34 operator:37 list:38 irc:39 src:40
shadow:42 utmp:43 video:44 sasl:45 plugdev:46 staff:50 games:60 users:100 nogroup:65534
"""
# As Debian has them, without what a site adds: other sources of accounts, other ranges, other defaults.
SETTINGS = {
    "default/useradd": "SHELL=/bin/sh\n",
    "hostname": f"{HOSTNAME}\n",
    "login.defs": """\
MAIL_DIR /var/mail
ENV_SUPATH PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV_PATH PATH=/usr/local/bin:/usr/bin:/bin
UMASK 022
PASS_MAX_DAYS 99999
PASS_MIN_DAYS 0
PASS_WARN_AGE 7
UID_MAX 60000
GID_MIN 1000
GID_MAX 60000
USERGROUPS_ENAB yes
ENCRYPT_METHOD SHA512
UID_MIN 1000
HOME_MODE 0750
""",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\ngshadow: files\nhosts: files dns\n",
    "pam.d/common-account": "account required pam_unix.so\n",
    "pam.d/common-auth": "auth required pam_unix.so nullok\n",
    "pam.d/common-password": "password required pam_unix.so obscure sha512\n",
    "pam.d/common-session": "session required pam_unix.so\n",
    "pam.d/common-session-noninteractive": "session required pam_unix.so\n",
    "skel/.profile": "umask 022\n",
}

# linux/loop.h
LOOP_SET_FD, LOOP_SET_STATUS64, LOOP_CTL_GET_FREE, LO_FLAGS_AUTOCLEAR = 0x4C00, 0x4C04, 0x4C82, 4
LOOP_INFO = struct.Struct("5Q4I64s64s32s2Q")


class Layer(NamedTuple):
    """A part of the machine's tree that keeps what is changed in it apart: `upper` over `lowers`, seen at `place`."""

    place: str
    upper: str
    lowers: tuple[str, ...]


class Unavailable(Exception):  # noqa: N818  # no error: a reason not to run the case here
    """This machine cannot be made to show what the case needs."""


class Image:
    """What all machines have in common, made once: the tree without a case's changes, and the program to run."""

    def __init__(self, directory: str, program: list[str], *, privileged: bool) -> None:
        self.directory = directory
        self.program = program
        self.privileged = privileged
        self.lowers: tuple[str, ...] = (f"{directory}/image", "/")
        _leave_propagation()
        mount("image", directory, "tmpfs", options="mode=755")
        for name in ("image", "work", "root", "machine"):
            os.mkdir(f"{directory}/{name}")
        self.sandbox = _make_sandbox() if privileged else None
        self.places = {path: path for path in _programs_elsewhere(program, HIDDEN[privileged])}
        if privileged:
            self._make_by_overlay()
            if program[0] == sys.executable and sys.prefix != sys.base_prefix:
                self._bring_program()
        else:
            self._make_by_copy()

    def upon(self, layer: str) -> Image:
        """Return this image with the changes that a directory has, the upper part of an overlay of it."""
        image = copy(self)
        image.lowers = (layer, *self.lowers)
        return image

    def _make_by_overlay(self) -> None:
        root = f"{self.directory}/root"
        options = f"lowerdir=/,upperdir={self.directory}/image,workdir={self.directory}/work"
        mount("image", root, "overlay", options=options)
        _settle_etc(f"{root}/etc")
        for program in ("end-when", "log-in"):
            shutil.copy(f"{os.path.dirname(__file__)}/{program}", f"{root}/usr/local/bin/{program}")
        for path in (*NOT_THE_IMAGES, "home"):
            shutil.rmtree(f"{root}/{path}", ignore_errors=True)
            with suppress(OSError):
                os.unlink(f"{root}/{path}")
        os.mkdir(f"{root}/home")
        os.chmod(f"{root}/root", 0o711)  # the interpreter may be in there, and cases run it as another user
        detach(root)

    def _bring_program(self) -> None:
        """Have the virtual environment, and a copy of the package, at a place that does not depend on the clone's."""
        original, changed, environment = (f"{self.directory}/{name}" for name in ("original", "changed", "environment"))
        package = os.path.dirname(minprov.__file__)
        shutil.copytree(package, f"{self.directory}/source/minprov", ignore=shutil.ignore_patterns("__pycache__"))
        for directory, _, files in os.walk(f"{self.directory}/source"):
            os.chmod(directory, 0o755)
            for name in files:
                os.chmod(f"{directory}/{name}", 0o644)
        # Or every start of the program in a fresh tree would compile it anew.
        compileall.compile_dir(f"{self.directory}/source", quiet=2)
        os.mkdir(original)
        bind(sys.prefix, original)  # a name that overlayfs takes as it is, without blanks or colons
        for path in glob.iglob(f"{original}/lib/python*/site-packages/*minprov*.pth"):
            _write(changed + path.removeprefix(original), f"{PROGRAM}/source\n")
        os.mkdir(environment)
        mount("environment", environment, "overlay", flags=MS_RDONLY, options=f"lowerdir={changed}:{original}")
        self.places |= {environment: f"{PROGRAM}/environment", f"{self.directory}/source": f"{PROGRAM}/source"}
        self.program = [f"{PROGRAM}/environment/bin/python", *self.program[1:]]

    def _make_by_copy(self) -> None:
        with suppress(shutil.Error):  # what cannot be read is not of the image
            shutil.copytree("/etc", f"{self.directory}/image/etc", symlinks=True)
        for name in ("var/lib", "var/log", "var/tmp", "mnt"):
            os.makedirs(f"{self.directory}/image/{name}")
        _settle_etc(f"{self.directory}/image/etc")


def _make_sandbox() -> Sandbox:
    try:
        return Sandbox()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"the unit's limits cannot be had without systemd and libseccomp: {error}") from error


def _leave_propagation() -> None:
    """Keep the mounts that follow in this namespace."""
    try:
        mount("none", "/", flags=MS_PRIVATE | MS_REC)
    except OSError as error:
        raise Unavailable("/ is no mount point, as in a chroot") from error


def _make_host_key(directory: str) -> None:
    for name in os.listdir(directory):
        if name.startswith("ssh_host_"):
            os.unlink(f"{directory}/{name}")
    key = f"{directory}/ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", HOSTNAME, "-f", key], check=True)


def _settle_etc(etc: str) -> None:
    """Make /etc that of an image: no people, known settings, nobody else who provisions."""
    users = [line.split(":") for line in USERS.splitlines()]
    groups = [word.split(":") for word in GROUPS.split()]
    accounts = {
        "passwd": [f"{name}:x:{uid}:{gid}:{name}:{home}:{shell}" for name, uid, gid, home, shell in users],
        "group": [f"{name}:x:{gid}:" for name, gid in groups],
        "shadow": [f"{name}:*:20000:0:99999:7:::" for name, *_ in users],
        "gshadow": [f"{name}:*::" for name, _ in groups],
        "subuid": [],
        "subgid": [],
    }
    for name, lines in accounts.items():
        _write(f"{etc}/{name}", "".join(f"{line}\n" for line in lines))
        with suppress(FileNotFoundError):
            os.unlink(f"{etc}/{name}-")
    shutil.rmtree(f"{etc}/skel", ignore_errors=True)
    for name, text in SETTINGS.items():
        _write(f"{etc}/{name}", text)
    if os.path.exists("/usr/sbin/sshd"):
        _make_host_key(f"{etc}/ssh")
        shutil.rmtree(f"{etc}/ssh/sshd_config.d", ignore_errors=True)
        os.makedirs(f"{etc}/ssh/sshd_config.d")
        _write(f"{etc}/ssh/sshd_config", SSHD_CONFIG)
    if os.path.exists("/usr/bin/sudo"):
        shutil.rmtree(f"{etc}/sudoers.d", ignore_errors=True)
        os.mkdir(f"{etc}/sudoers.d", 0o755)
        _write(f"{etc}/sudoers", "root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n")
    for name in OTHER_AGENTS:
        with suppress(FileNotFoundError):
            os.unlink(f"{etc}/systemd/system/{name}")


def _write(path: str, text: str) -> None:
    """Write a file as a package would have: its mode and owner stay if it was there."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


class Machine:
    """One machine, made in the calling process, which becomes process 1 of it: fork before and exit after."""

    def __init__(self, image: Image, *, tree: bool) -> None:
        self.program = image.program
        self.privileged = image.privileged
        self.sandbox = image.sandbox
        self.root = f"{image.directory}/root"
        self._space = f"{image.directory}/machine"
        mount("machine", self._space, "tmpfs")
        self.layers = self._mount_tree(image, "/") if image.privileged else self._mount_copies(image)
        for path, place in image.places.items():
            os.makedirs(self.root + place, exist_ok=True)
            bind(path, self.root + place)
        self._mount_run()
        self._mount_dev()
        mount("sys", f"{self.root}/sys", "tmpfs")
        mount("proc", f"{self.root}/proc", "proc")
        if tree:
            os.mkdir(f"{self.root}/sysroot")
            self.layers += self._mount_tree(image, "/sysroot")
        socket.sethostname(HOSTNAME)
        add_address("lo", "127.0.0.1")
        # The platform's sockets are bound before the interface has the addresses.
        with open("/proc/sys/net/ipv4/ip_nonlocal_bind", "w", encoding="ascii") as switch:
            switch.write("1")

    def _mount_tree(self, image: Image, place: str) -> list[Layer]:
        return self._mount_layer(image, place, self._space)

    def _mount_layer(self, image: Image, place: str, directory: str) -> list[Layer]:
        upper, work = f"{directory}/upper{len(place)}", f"{directory}/work{len(place)}"
        os.makedirs(upper, exist_ok=True)
        os.makedirs(work, exist_ok=True)
        options = f"lowerdir={':'.join(image.lowers)},upperdir={upper},workdir={work}"
        mount("tree", self.root + place, "overlay", options=options)
        return [Layer(place, upper, image.lowers)]

    def _mount_copies(self, image: Image) -> list[Layer]:
        mount("root", self.root, "tmpfs")
        layers = []
        for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
            place = f"{self.root}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
                continue
            if not entry.is_dir():
                continue
            os.mkdir(place)
            own = f"{image.directory}/image/{entry.name}"
            if os.path.isdir(own):
                shutil.copytree(own, place, symlinks=True, dirs_exist_ok=True)
                layers.append(Layer(f"/{entry.name}", place, (own,)))
            elif entry.name not in ("dev", "proc", "run", "sys"):
                bind(entry.path, place)
        return layers

    def _mount_run(self) -> None:
        run, nothing = f"{self._space}/run", f"{self._space}/nothing"
        os.mkdir(run)
        os.mkdir(nothing)
        bind(run, f"{self.root}/run")
        self.layers.append(Layer("/run", run, (nothing,)))

    def _mount_dev(self) -> None:
        dev = f"{self.root}/dev"
        mount("dev", dev, "tmpfs", options="mode=755")
        for name in DEVICES:
            self._show_device(f"/dev/{name}", f"/dev/{name}")
        os.mkdir(f"{dev}/pts")
        mount("devpts", f"{dev}/pts", "devpts", options="newinstance,ptmxmode=0666")
        os.symlink("pts/ptmx", f"{dev}/ptmx")
        os.symlink("/proc/self/fd", f"{dev}/fd")
        self._console, terminal = os.openpty()
        tty.setraw(terminal)
        self._show_device(os.ttyname(terminal), "/dev/console")

    def _show_device(self, device: str, place: str) -> None:
        with open(self.root + place, "x", encoding="ascii"):
            pass
        bind(device, self.root + place)

    # -- what a case can ask for -----------------------------------------------------------------------------------

    def show_firmware(self, kind: str, vm_id: str) -> None:
        """Show what the kernel tells of the firmware of an Azure VM of a generation, or of another machine."""
        sys_ = f"{self.root}/sys"
        shutil.rmtree(f"{sys_}/class", ignore_errors=True)
        shutil.rmtree(f"{sys_}/firmware", ignore_errors=True)
        uuid = {"gen1": swap_byte_order(vm_id), "elsewhere": "4c4c4544-0042-3510-8054-b7c04f564433"}.get(kind, vm_id)
        tag = "Chassis Asset Tag" if kind == "elsewhere" else AZURE_CHASSIS_ASSET_TAG
        if kind != "none":
            _write(f"{sys_}/class/dmi/id/product_uuid", f"{uuid}\n")
            _write(f"{sys_}/class/dmi/id/chassis_asset_tag", f"{tag}\n")
        if kind == "gen2":
            os.makedirs(f"{sys_}/firmware/efi")

    def insert_disc(self, image: str) -> None:
        """Show an image file as the block device /dev/sr0, by way of a loop device."""
        try:
            with open("/dev/loop-control", "rb") as control, open(image, "rb") as contents:
                loop, device = _take_loop_device(control, contents)
                fcntl.ioctl(device, LOOP_SET_STATUS64, LOOP_INFO.pack(*[0] * 8, LO_FLAGS_AUTOCLEAR, *[b""] * 3, 0, 0))
        except OSError as error:
            raise Unavailable(f"no loop device: {error}") from error
        self._show_device(loop, "/dev/sr0")

    def raise_interface(self) -> None:
        """Give the interface the platform's addresses, as the routes that come with the first DHCP lease do."""
        add_address("lo:1", WIRESERVER)
        add_address("lo:2", IMDS)

    def lower_interface(self) -> None:
        """Take the platform's addresses from the interface, if it has them."""
        for alias in ("lo:1", "lo:2"):
            with suppress(OSError):
                switch_interface(alias, up=False)

    def read_console(self) -> str:
        """Return what was written to the serial console since the last time."""
        os.set_blocking(self._console, False)
        text = b""
        with suppress(BlockingIOError):
            while piece := os.read(self._console, 4096):
                text += piece
        return text.decode(errors="replace")


def _programs_elsewhere(program: list[str], hidden: tuple[str, ...]) -> list[str]:
    """Return where interpreter and program are, if a machine's tree does not show that: the file system is another."""
    paths = {sys.prefix, sys.base_prefix, os.path.dirname(os.path.dirname(minprov.__file__))}
    if "/" in program[0]:
        paths.add(os.path.dirname(program[0]))
    return sorted(
        path
        for path in paths
        if os.stat(path).st_dev != os.stat("/").st_dev or path.startswith(tuple(f"{place}/" for place in hidden))
    )


def _take_loop_device(control: BinaryIO, contents: BinaryIO) -> tuple[str, int]:
    """Return the path and the descriptor of a loop device; it frees itself when this process, its last user, ends."""
    while True:
        loop = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
        device = os.open(loop, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_SET_FD, contents.fileno())
            return loop, device
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # which it is when somebody else was quicker
                raise


def leave_this_machine() -> None:
    """Get namespaces of one's own: the next child is process 1 of a machine that has nothing yet."""
    unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID)
