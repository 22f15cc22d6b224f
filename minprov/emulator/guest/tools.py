"""The system's programs that booting a guest takes."""

from __future__ import annotations

import os
import shutil

from minprov.errors import ProvisioningError, Reason

# Who is not root has no sbin in PATH on Debian, where dnsmasq is.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

# Debian's, where they are not called like the program.
_PACKAGES = {
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-system-x86_64": "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "unshare": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


def find_tool(name: str) -> str:
    """Return the path of a program.

    Raises: ProvisioningError(TOOL_NOT_FOUND), with the package that has it on Debian.
    """
    path = shutil.which(name, path=_PATH)
    if path is None:
        of_debian = f" (Debian: {_PACKAGES[name]})" if name in _PACKAGES else ""
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool=name, action=f"install {name}{of_debian}")
    return path
