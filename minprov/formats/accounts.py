"""The account database's text files, read: passwd(5), shadow(5), group(5), login.defs(5).

Pure: text in, values out. Changing the database is left to the system's own tools.
"""

from typing import NamedTuple

DEFAULT_UID_MIN = 1000  # shadow-utils' own default for UID_MIN, login.defs(5)
DEFAULT_HOME_MODE = 0o700


class Account(NamedTuple):
    """A line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def find_account(passwd: str, name: str) -> Account | None:
    """Return the account with this name, or None; a line that is not one of passwd(5) is passed over."""
    for fields in _entries(passwd, name):
        if len(fields) == 7 and fields[2].isdecimal() and fields[3].isdecimal():
            home = fields[5] if fields[5].startswith("/") else "/"  # as login(1) has it
            return Account(name=name, uid=int(fields[2]), gid=int(fields[3]), home=home, shell=fields[6])
    return None


def find_password_field(shadow: str, name: str) -> str | None:
    """Return the encrypted password field of shadow(5), or None without an entry."""
    for fields in _entries(shadow, name):
        if len(fields) > 1:
            return fields[1]
    return None


def existing_groups(group: str) -> set[str]:
    """Return the names of all groups."""
    return {line.split(":", 1)[0] for line in group.splitlines() if ":" in line}


def groups_of(group: str, name: str) -> set[str]:
    """Return the names of the groups that list the user as a member."""
    lines = (line.split(":") for line in group.splitlines())
    return {fields[0] for fields in lines if len(fields) == 4 and name in fields[3].split(",")}


def uid_min(login_defs: str) -> int:
    """Return the lowest uid of ordinary users."""
    value = _definition(login_defs, "UID_MIN")
    return int(value) if value and value.isdecimal() else DEFAULT_UID_MIN


def home_mode(login_defs: str) -> int:
    """Return the mode of new home directories; without HOME_MODE they are private."""
    value = _definition(login_defs, "HOME_MODE")
    try:
        return int(value, 8) & 0o755 if value else DEFAULT_HOME_MODE
    except ValueError:
        return DEFAULT_HOME_MODE


def _entries(database: str, name: str) -> list[list[str]]:
    return [line.split(":") for line in database.splitlines() if line.startswith(f"{name}:")]


def _definition(login_defs: str, key: str) -> str | None:
    for line in login_defs.splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] == key:
            return fields[1]
    return None
