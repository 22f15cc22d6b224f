"""SSH password login: what sshd itself says is in force, and a drop-in where that has to change, sshd_config(5).

A drop-in wins over what an administrator later writes in sshd_config, and has broken password resets elsewhere
(cloud-init#4335), so one is written only when sshd does not behave as it should already. Off means off from every
address and by every way: PAM asks for passwords by keyboard-interactive too.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress

from minprov.actions import ConfigureSshd
from minprov.errors import Reason
from minprov.machine.system import System
from minprov.properties.inspection import Inspection
from minprov.properties.login import (
    Obstacle,
    explained,
    methods_obstacle,
    needs_keyboard_interactive,
    password_obstacle,
    require_login,
)
from minprov.properties.sshd_settings import CONFIG, Settings, ask_sshd

PID_FILE = "/run/sshd.pid"
PASSWORD = "PasswordAuthentication"  # noqa: S105  # a setting
# The older name comes first: a sshd that knows it as a setting of its own does not mind the newer one.
KEYBOARD = ("ChallengeResponseAuthentication", "KbdInteractiveAuthentication")


async def inspect(system: System, action: ConfigureSshd) -> Inspection:
    """Ask sshd what is in force for this user, from wherever that may differ.

    Raises `ProvisioningError` for a setting of sshd that keeps the user out.
    """
    if system.own_tool("sshd") is None:
        return Inspection(True, "sshd is not installed", verified=False)
    if not system.live:
        return _inspect_tree(system, action)
    answers = await ask_sshd(system, action.username, action.groups)
    if answers is None:
        return Inspection(None, "cannot be seen without privileges")
    _require_way_in(system, action, answers)
    wrong = [(settings, name) for settings in answers for name in _wrong_switches(settings, action)]
    count = f", asked for {len(answers)} connections" if len(answers) > 1 else ""
    if not wrong:
        return Inspection(True, f"{PASSWORD} {_value(action)}{count}")
    settings, name = wrong[0]
    found = settings.one(name.lower())
    if system.read(action.drop_in) == _contents(action, answers) + _block(action, answers):
        # All that can be done was done.
        raise explained(system, Obstacle(Reason.PASSWORD_LOGIN, name, found), settings, action.groups)
    return Inspection(False, f"{name} {found} from {settings.connection['addr']}, to be {_value(action)}")


async def converge(system: System, action: ConfigureSshd) -> None:
    """Write the drop-in where it is needed, make sure that it counts, and have a running sshd read it."""
    if system.own_tool("sshd") is None:
        return
    answers = await ask_sshd(system, action.username, action.groups)
    await system.replace(action.drop_in, _contents(action, answers), mode=0o644)
    if answers is None:
        await _include_first(system, action.drop_in)
        return
    if await _is_wrong(system, action):
        await _include_first(system, action.drop_in)
    if await _is_wrong(system, action):
        # A Match block says otherwise for some addresses. Of several blocks that apply the first one counts.
        contents = _contents(action, answers) + _block(action, answers)
        await system.replace(action.drop_in, contents, mode=0o644)
    _reload()


def _inspect_tree(system: System, action: ConfigureSshd) -> Inspection:
    """Look for the drop-in, and that it comes first.

    A tree's sshd may be for another architecture, and has no /dev to run with: what it would say cannot be asked.
    """
    in_place = system.read(action.drop_in) == _contents(action, None)
    comes_first = (system.read(CONFIG) or b"").startswith(_include(action.drop_in))
    return Inspection(in_place and comes_first, "drop-in" if in_place and comes_first else "no drop-in")


def _require_way_in(system: System, action: ConfigureSshd, answers: Sequence[Settings]) -> None:
    def obstacle_of(settings: Settings, groups: set[str]) -> Obstacle | None:
        if action.password_authentication:
            return password_obstacle(settings, action.username, groups, keys=action.with_keys)
        # A list of methods that all need a password would be one that sshd refuses to start with.
        return methods_obstacle(settings, {"publickey"})

    require_login(system, action.username, action.groups, answers, obstacle_of)


def _wrong_switches(settings: Settings, action: ConfigureSshd) -> list[str]:
    """Return the names of the settings that let passwords in, or keep them out, against what the platform says."""
    wrong = [PASSWORD] if settings.is_on(PASSWORD.lower()) != action.password_authentication else []
    if not action.password_authentication and settings.is_on("usepam") and not needs_keyboard_interactive(settings):
        wrong += [name for name in KEYBOARD if settings.is_on(name.lower())]
    return wrong


async def _is_wrong(system: System, action: ConfigureSshd) -> bool:
    answers = await ask_sshd(system, action.username, action.groups) or []
    return any(_wrong_switches(settings, action) for settings in answers)


def _value(action: ConfigureSshd) -> str:
    return "yes" if action.password_authentication else "no"


def _contents(action: ConfigureSshd, answers: Sequence[Settings] | None) -> bytes:
    comment = "# Written by minprov: the platform says so for this VM.\n"
    return (comment + "".join(f"{line}\n" for line in _switches(action, answers))).encode()


def _block(action: ConfigureSshd, answers: Sequence[Settings] | None) -> bytes:
    lines = [f"Match User {action.username}", *(f"    {line}" for line in _switches(action, answers))]
    return "".join(f"{line}\n" for line in lines).encode()


def _switches(action: ConfigureSshd, answers: Sequence[Settings] | None) -> list[str]:
    lines = [f"{PASSWORD} {_value(action)}"]
    if not action.password_authentication:
        if answers is None:
            lines.append(f"{KEYBOARD[-1]} no")
        elif not any(needs_keyboard_interactive(settings) for settings in answers):
            lines += [f"{name} no" for name in KEYBOARD if any(settings.all(name.lower()) for settings in answers)]
    return lines


def _include(drop_in: str) -> bytes:
    return f"Include {drop_in}\n".encode()


async def _include_first(system: System, drop_in: str) -> None:
    """Put the drop-in before all else, since the first value wins: the image's configuration does not include it."""
    config = system.read(CONFIG)
    if config is None or config.startswith(_include(drop_in)):
        return
    mode = stat.S_IMODE(os.stat(system.path(CONFIG)).st_mode)
    await system.replace(CONFIG, _include(drop_in) + config, mode=mode)


def _reload() -> None:
    """Send SIGHUP to sshd if it runs: the one way that works under every init system."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        with open(PID_FILE, encoding="ascii") as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/comm", encoding="ascii") as stream:
            is_sshd = stream.read().strip() == "sshd"
        if is_sshd:
            os.kill(pid, signal.SIGHUP)
