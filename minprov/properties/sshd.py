"""SSH password login: what sshd itself says is in force, and a drop-in where that has to change, sshd_config(5).

A drop-in wins over what an administrator later writes in sshd_config, and has broken password resets elsewhere
(cloud-init#4335), so one is written only when sshd does not behave as it should already. Off means off from every
address and by every way: PAM asks for passwords by keyboard-interactive too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from minprov.actions import ConfigureSshd
from minprov.errors import ProvisioningError, Reason
from minprov.machine.system import System
from minprov.machine.tools import run_tool
from minprov.properties.inspection import Inspection
from minprov.properties.login import (
    Obstacle,
    admission_notes,
    explained,
    methods_obstacle,
    needs_keyboard_interactive,
    password_obstacle,
    require_login,
)
from minprov.properties.sshd_settings import CONFIG, Settings, ask_in_change, ask_sshd, reload_sshd

DRAFT = "/etc/ssh/.sshd_config.draft.minprov"
BEGIN, END = b"# minprov: begin. Written by minprov for this VM.\n", b"# minprov: end\n"
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
    await _require_way_in(system, action, answers)
    wrong = [(settings, name) for settings in answers for name in _wrong_switches(settings, action)]
    count = f", asked for {len(answers)} connections" if len(answers) > 1 else ""
    if not wrong:
        asks = action.password_authentication
        notes = await admission_notes(system, action.username, answers, password=True) if asks else ()
        return Inspection(True, f"{PASSWORD} {_value(action)}{count}", verified=not notes, notes=notes)
    settings, name = wrong[0]
    found = settings.one(name.lower())
    if system.read(action.drop_in) == _contents(action, answers) + _block(action, answers):
        # All that can be done was done.
        raise await explained(system, Obstacle(Reason.PASSWORD_LOGIN, name, found), settings, action.groups)
    return Inspection(False, f"{name} {found} from {settings.connection['addr']}, to be {_value(action)}")


async def converge(system: System, action: ConfigureSshd) -> None:
    """Write the drop-in where it is needed, make sure that it counts, and have a running sshd read it.

    What sshd does not take is not put in place, or is taken back: then sshd goes on with what it had.
    """
    sshd = system.own_tool("sshd")
    if sshd is None:
        return
    async with system.asking:
        answers = await ask_in_change(system, action.username, action.groups)
        before = {path: system.read(path) for path in (action.drop_in, CONFIG)}
        if answers is None:
            await system.replace(action.drop_in, _contents(action, answers), mode=0o644)
            await _write_config(system, _include(action.drop_in) + _without_include(system, action.drop_in))
            return
        try:
            await _put_in_place(system, sshd, action, answers)
            await run_tool([*sshd, "-t"])
        except ProvisioningError:
            await system.take_back(before)
            raise
    await reload_sshd(system)


async def _put_in_place(system: System, sshd: list[str], action: ConfigureSshd, answers: Sequence[Settings]) -> None:
    contents = _contents(action, answers)
    await _try(system, sshd, contents + (system.read(CONFIG) or b""))
    await system.replace(action.drop_in, contents, mode=0o644)
    if await _is_wrong(system, action):
        # The image's configuration does not include it. The first value wins, so it goes before all else.
        config = _include(action.drop_in) + _without_include(system, action.drop_in)
        try:
            await _try(system, sshd, config)
        except ProvisioningError:
            # OpenSSH before 8.2 knows no Include.
            config = _marked(contents) + _without_marked(system.read(CONFIG) or b"")
            await _try(system, sshd, config)
            await system.remove(action.drop_in)
            await _write_config(system, config)
            return
        await _write_config(system, config)
    if await _is_wrong(system, action):
        # A Match block says otherwise for some addresses. Of several blocks that apply the first one counts.
        block = _block(action, answers)
        await _try(system, sshd, contents + (system.read(CONFIG) or b"") + b"\n" + block)
        await system.replace(action.drop_in, contents + block, mode=0o644)


def _inspect_tree(system: System, action: ConfigureSshd) -> Inspection:
    """Look for the drop-in, and that it comes first.

    A tree's sshd may be for another architecture, and has no /dev to run with: what it would say cannot be asked.
    """
    in_place = system.read(action.drop_in) == _contents(action, None)
    comes_first = (system.read(CONFIG) or b"").startswith(_include(action.drop_in))
    return Inspection(in_place and comes_first, "drop-in" if in_place and comes_first else "no drop-in")


async def _require_way_in(system: System, action: ConfigureSshd, answers: Sequence[Settings]) -> None:
    def obstacle_of(settings: Settings, groups: set[str]) -> Obstacle | None:
        if action.password_authentication:
            return password_obstacle(settings, action.username, groups, keys=action.with_keys)
        # A list of methods that all need a password would be one that sshd refuses to start with.
        return methods_obstacle(settings, {"publickey"})

    await require_login(system, action.username, action.groups, answers, obstacle_of)


def _wrong_switches(settings: Settings, action: ConfigureSshd) -> list[str]:
    """Return the names of the settings that let passwords in, or keep them out, against what the platform says."""
    wrong = [PASSWORD] if settings.is_on(PASSWORD.lower()) != action.password_authentication else []
    if not action.password_authentication and settings.is_on("usepam") and not needs_keyboard_interactive(settings):
        wrong += [name for name in KEYBOARD if settings.is_on(name.lower())]
    return wrong


async def _is_wrong(system: System, action: ConfigureSshd) -> bool:
    answers = await ask_in_change(system, action.username, action.groups) or []
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


def _without_include(system: System, drop_in: str) -> bytes:
    return (system.read(CONFIG) or b"").removeprefix(_include(drop_in))


def _marked(contents: bytes) -> bytes:
    return BEGIN + contents + END


def _without_marked(config: bytes) -> bytes:
    """Return the configuration without what an earlier run has put at its top."""
    return config.partition(END)[2] if config.startswith(BEGIN) and END in config else config


async def _write_config(system: System, config: bytes) -> None:
    if system.exists(CONFIG) and system.read(CONFIG) != config:
        mode = stat.S_IMODE(os.stat(system.path(CONFIG)).st_mode)
        await system.replace(CONFIG, config, mode=mode)


async def _try(system: System, sshd: list[str], config: bytes) -> None:
    """Have sshd read a configuration as a whole before any of it is in place; raises TOOL_FAILED with what it says."""
    await system.read_draft([*sshd, "-t", "-f"], DRAFT, config, mode=0o600)
