"""Host names and user names: text in, a name that is safe to use or a `ProvisioningError` that names the rule.

Every name passes here once, in the parser of its source, before any tool, path, or configuration file sees it. The
rules are stricter than any one tool's, so that a name means the same to all of them.
"""

from __future__ import annotations

import re

from minprov.errors import ProvisioningError, Reason, excerpt

HOST_NAME_MAX = 64  # Linux: sethostname(2)
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # RFC 1123 §2.1, RFC 1034 §3.5
IPV4_FORM = r"[0-9]+(\.[0-9]+){3}"

LOGIN_NAME_MAX = 32  # shadow-utils and utmp keep no more
LOGIN_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# sudoers(5): as the first word of a rule these are not a user's name; ALL would grant the rule to everyone.
SUDOERS_WORDS = frozenset({"ALL", "Defaults", "Cmnd_Alias", "Cmd_Alias", "Host_Alias", "Runas_Alias", "User_Alias"})


def parse_hostname(text: str) -> str:
    """Return `text`, unchanged in case, if it is one or more RFC 1123 labels that fit in the kernel's host name.

    Raises:
        ProvisioningError: INVALID_HOSTNAME with the value and the rule it breaks.
    """
    rule = None
    if not text:
        rule = "must not be empty"
    elif len(text) > HOST_NAME_MAX:
        rule = f"must have at most {HOST_NAME_MAX} characters"
    elif re.fullmatch(IPV4_FORM, text):
        rule = "must not have the form of an IPv4 address"  # RFC 1123 §2.1: it would be taken for one
    elif not all(re.fullmatch(LABEL, label) for label in text.split(".")):
        rule = "labels have 1 to 63 letters, digits and inner hyphens"
    if rule is not None:
        raise ProvisioningError(Reason.INVALID_HOSTNAME, value=excerpt(text), rule=rule)
    return text


def parse_username(text: str) -> str:
    """Return `text` if account tools, sudoers, and paths all read it as one plain name.

    - A leading '-' would be an option of useradd, a leading '.' a hidden or parent directory under /home.
    - Digits only would be a uid to chown, sudo -u and systemd.
    - '/', ':', whitespace, and shell or sudoers characters would split a path, a passwd entry, or a rule.
    - Words of the sudoers grammar would change what a rule means.

    Raises:
        ProvisioningError: INVALID_USERNAME with the value and the rule it breaks.
    """
    rule = None
    if not text:
        rule = "must not be empty"
    elif len(text) > LOGIN_NAME_MAX:
        rule = f"must have at most {LOGIN_NAME_MAX} characters"
    elif not re.fullmatch(LOGIN_NAME, text):
        rule = "has letters, digits, '_', '.' and '-', and begins with neither '.' nor '-'"
    elif text.isdecimal():
        rule = "must not be a number"
    elif text in SUDOERS_WORDS:
        rule = "must not be a word of the sudoers grammar"
    if rule is not None:
        raise ProvisioningError(Reason.INVALID_USERNAME, value=excerpt(text), rule=rule)
    return text
