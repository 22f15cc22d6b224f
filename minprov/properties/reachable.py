"""Whether a connection from another machine gets as far as sshd's own rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason

if TYPE_CHECKING:
    from minprov.machine.system import System
    from minprov.properties.sshd_settings import Settings

ALLOW, DENY = "/etc/hosts.allow", "/etc/hosts.deny"
WRAPPERS = b"libwrap.so"
SESSION = "/usr/lib/openssh/sshd-session"
# With one of them systemd listens, at addresses of its own.
SOCKETS = tuple(f"/etc/systemd/system/sockets.target.wants/{name}.socket" for name in ("ssh", "sshd"))
LOOPBACK = ("127.", "[::1]:")


def require_reachable(system: System, username: str, settings: Settings) -> None:
    """Raise `ProvisioningError` where sshd listens to this machine alone, or TCP wrappers close it to all others."""
    addresses = settings.all("listenaddress")
    listens_here = addresses and all(address.startswith(LOOPBACK) for address in addresses)
    if listens_here and not any(map(system.exists, SOCKETS)):
        raise ProvisioningError(Reason.LOGIN_REFUSED, username=username, setting=f"ListenAddress {' '.join(addresses)}")
    rules = {path: system.read_text(path) for path in (ALLOW, DENY)}
    if all(line.startswith("#") or not line.strip() for text in rules.values() for line in text.splitlines()):
        return
    from minprov.formats.hosts_access import find_closing_rule  # few images have rules

    rule = find_closing_rule(rules[ALLOW], rules[DENY], "sshd")
    if rule and _uses_wrappers(system):
        file = ALLOW if "deny" in rule.options else DENY
        raise ProvisioningError(Reason.LOGIN_REFUSED, username=username, setting=rule.text, file=file, line=rule.number)


def _uses_wrappers(system: System) -> bool:
    """Tell whether sshd is one with TCP wrappers, as Debian's is; a newer one has a program for each connection."""
    programs = (*(system.own_tool("sshd") or ()), SESSION)
    return any(WRAPPERS in (system.read(program) or b"") for program in programs)
