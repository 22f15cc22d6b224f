"""The guests: what each is made of. A new guest is a new entry here, and perhaps a tree of files in `trees/`."""

from __future__ import annotations

from dataclasses import dataclass

COMMON = ("iproute2", "kmod", "openssh-server", "procps", "sudo")
SYSTEMD = ("dbus", "libpam-systemd", "systemd-sysv", "udev")
PYTHON = ("python3", "python3-aiofiles", "python3-aiohttp", "python3-defusedxml", "python3-uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A guest: its packages, the file trees laid over them in order, and the commands run in it last."""

    name: str
    packages: tuple[str, ...]
    trees: tuple[str, ...]
    commands: tuple[str, ...] = ()
    minprov: bool = True


NETWORKD = Recipe(
    name="networkd",
    packages=(*COMMON, *SYSTEMD, *PYTHON),
    trees=("common", "systemd", "networkd"),
    commands=("systemctl enable --quiet systemd-networkd.service vm-shell.service",),
)

IFUPDOWN = Recipe(
    name="ifupdown",
    packages=(*COMMON, *SYSTEMD, *PYTHON, "ifupdown", "isc-dhcp-client"),
    trees=("common", "systemd", "ifupdown"),
    commands=("systemctl enable --quiet vm-shell.service",),
)

NETWORK_MANAGER = Recipe(
    name="network-manager",
    packages=(*COMMON, *SYSTEMD, *PYTHON, "network-manager"),
    trees=("common", "systemd"),
    commands=("systemctl enable --quiet vm-shell.service",),
)

CLOUD_INIT = Recipe(
    name="cloud-init",
    packages=(*COMMON, *SYSTEMD, "cloud-init", "isc-dhcp-client"),
    trees=("common", "systemd", "networkd"),
    commands=("systemctl enable --quiet systemd-networkd.service vm-shell.service",),
    minprov=False,
)

WAAGENT = Recipe(
    name="waagent",
    packages=(*COMMON, *SYSTEMD, "waagent", "eject", "isc-dhcp-client", "openssl"),
    trees=("common", "systemd", "networkd", "waagent"),
    commands=(
        "systemctl enable --quiet systemd-networkd.service vm-shell.service",
        # Debian leaves provisioning to cloud-init; the agent can do it itself.
        "sed -i 's/^Provisioning.Agent=.*/Provisioning.Agent=waagent/' /etc/waagent.conf",
    ),
    minprov=False,
)

SYSVINIT = Recipe(
    name="sysvinit",
    packages=(*COMMON, *PYTHON, "ifupdown", "isc-dhcp-client", "sysvinit-core", "udev"),
    trees=("common", "ifupdown"),
    commands=("echo 'vm:2345:respawn:/usr/local/sbin/vm-shell' >>/etc/inittab",),
)
