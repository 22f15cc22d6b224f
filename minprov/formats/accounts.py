"""The account database's text files, read: passwd(5), shadow(5), group(5), login.defs(5).

Pure: text in, values out. Changing the database is left to the system's own tools. A line, and what it says, is what
glibc takes it for (nss/nss_files/files-parse.c): an account that the system has must not be overlooked here.
"""

import re

from minprov.definitions import NamedTuple

DEFAULT_UID_MIN = 1000  # shadow-utils' own default for UID_MIN, login.defs(5)
DEFAULT_UID_MAX = 60000
DEFAULT_HOME_MODE = 0o700
BLANKS = " \t\n\v\f\r"  # isspace(3) in the C locale
NUMBER = rf"[{BLANKS}]*([+-]?)([0-9]+)"  # strtoul(3)
DEFINED_NUMBER = r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19}"
MAX_ID, MAX_LONG = (1 << 32) - 1, (1 << 64) - 1


class Account(NamedTuple):
    """A line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def find_account(passwd: str, name: str) -> Account | None:
    """Return the account with this name, or None; a line that is not one of passwd(5) is passed over.

    The last three of the seven fields may be missing.
    """
    for fields in _entries(passwd):
        if fields[0] != name or len(fields) < 4:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"  # as login(1) has it
            return Account(name=name, uid=uid, gid=gid, home=home, shell=":".join(fields[6:]))
    return None


def find_name(passwd: str, uid: int) -> str | None:
    """Return the name of an account with this number, or None."""
    entries = (fields for fields in _entries(passwd) if len(fields) >= 4)
    return next((fields[0] for fields in entries if _number(fields[2]) == uid), None)


def has_empty_password(passwd: str, shadow: str, name: str) -> bool:
    """Tell whether anybody can become this account without a password: passwd(5), crypt(5)."""
    field = find_password_field(passwd, name)
    return (find_password_field(shadow, name) if field == "x" else field) == ""


def find_fields(database: str, name: str) -> list[str] | None:
    """Return the fields of an account's line in passwd(5) or shadow(5), or None."""
    return next((fields for fields in _entries(database) if fields[0] == name), None)


def find_password_field(shadow: str, name: str) -> str | None:
    """Return the encrypted password field of shadow(5) or passwd(5), or None without an entry."""
    return next((fields[1] for fields in _entries(shadow) if fields[0] == name and len(fields) > 1), None)


def replace_password_field(database: str, name: str, field: str) -> str:
    """Return the text of shadow(5) or passwd(5) with another password field for an account; all else stays."""
    lines = database.split("\n")
    for index, line in enumerate(lines):
        before, _, rest = line.partition(":")
        if before.lstrip(BLANKS) == name and rest:
            _, colon, others = rest.partition(":")
            lines[index] = f"{before}:{field}{colon}{others}"
    return "\n".join(lines)


def existing_groups(group: str) -> set[str]:
    """Return the names of all groups."""
    return {fields[0] for fields in _entries(group) if len(fields) > 2 and _number(fields[2]) is not None}


def find_gid(group: str, name: str) -> int | None:
    """Return the number of a group, or None where there is none of that name."""
    return next((_number(fields[2]) for fields in _entries(group) if fields[0] == name and len(fields) > 2), None)


def groups_of(group: str, name: str) -> set[str]:
    """Return the names of the groups that list the user as a member."""
    return {fields[0] for fields in _entries(group) if len(fields) == 4 and name in fields[3].split(",")}


def uid_min(login_defs: str) -> int:
    """Return the lowest uid of ordinary users."""
    return _defined_number(login_defs, "UID_MIN", DEFAULT_UID_MIN)


def uid_max(login_defs: str) -> int:
    """Return the highest uid of ordinary users."""
    return _defined_number(login_defs, "UID_MAX", DEFAULT_UID_MAX)


def home_mode(login_defs: str) -> int:
    """Return the mode of new home directories; without HOME_MODE they are private. The owner may always enter."""
    value = _definition(login_defs, "HOME_MODE")
    try:
        return int(value, 8) & 0o755 | 0o700 if value else DEFAULT_HOME_MODE
    except ValueError:
        return DEFAULT_HOME_MODE


def _entries(database: str) -> list[list[str]]:
    """Return the fields of each line that is neither empty nor a comment."""
    lines = (line.lstrip(BLANKS).partition("\0")[0] for line in database.split("\n"))
    return [line.split(":") for line in lines if line and not line.startswith("#")]


def _number(text: str) -> int | None:
    """Return a user's or group's number, or None where there is none."""
    found = re.fullmatch(NUMBER, text)
    if not found:
        return None
    sign, digits = found.groups()
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(MAX_LONG)) or int(digits) > MAX_LONG:
        return None
    value = int(digits) if sign != "-" else -int(digits) & MAX_LONG
    return value if value <= MAX_ID else None


def _defined_number(login_defs: str, key: str, default: int) -> int:
    """Return a number as shadow-utils reads it: strtoul(3) with the base that the number's own prefix says."""
    value = _definition(login_defs, key) or ""
    if not re.fullmatch(DEFINED_NUMBER, value):
        return default
    octal = value.startswith("0") and value.isdecimal()
    number = int(value, 8 if octal else 0)
    return number if number <= MAX_LONG else default


def _definition(login_defs: str, key: str) -> str | None:
    for line in login_defs.split("\n"):
        fields = line.split()
        if len(fields) > 1 and fields[0] == key:
            return fields[1]
    return None
