"""The ageing fields of an account, shadow(5): what would keep its user from logging in. Pure."""

from __future__ import annotations

from minprov.formats.accounts import find_fields

LAST_CHANGE, MAXIMUM, INACTIVE, EXPIRES = 2, 4, 6, 7
EXPIRED, MUST_CHANGE = "the account has expired", "its password must be changed"


def find_ageing_fault(shadow: str, name: str, today: int) -> str | None:
    """Return what PAM would say on a day, counted from 1970: check_shadow_expiry in pam_unix's passverify.c."""
    fields = find_fields(shadow, name)
    if fields is None or len(fields) <= EXPIRES:
        return None
    last_change, maximum, inactive, expires = (
        int(fields[index]) if fields[index].isdecimal() else None for index in (LAST_CHANGE, MAXIMUM, INACTIVE, EXPIRES)
    )
    if expires is not None and today >= expires:
        return EXPIRED
    if last_change is None:
        return None
    age = today - last_change
    if last_change == 0 or (maximum is not None and age > maximum):
        return MUST_CHANGE if inactive is None or last_change == 0 or age <= inactive else EXPIRED
    return None
