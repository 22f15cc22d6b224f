"""What others size takes time that grows as it does: the one test with a clock.

90,000 blanks in a start tag once took 19 s, and 500,000 half an hour. Each text is the worst of its kind that is known,
once and eight times as long; the processor's time must not grow by more than twelve.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from minprov.errors import ProvisioningError
from minprov.formats.accounts import existing_groups, find_account, groups_of
from minprov.formats.ssh_keys import merge_keys, normalise_keys
from minprov.imds import parse_instance
from minprov.ovf import parse_ovf_env, redact
from minprov.report import encode_failure

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBMcHWTvNl7ozF7F7qgeovwoswR3mlYkSNEabFK8ZeEL"


def attributes(count: int) -> str:
    return "".join(f" a{number}='{number}'" for number in range(count))


# What to do with a text of a length, by the length.
WORST: dict[str, Callable[[int], object]] = {
    "blanks in a tag": lambda n: redact(f"<a><UserPassword{' ' * 20 * n}>x</UserPassword></a>".encode()),
    "line ends in a tag": lambda n: redact(f"<a><UserPassword{chr(10) * 20 * n}>x</UserPassword></a>".encode()),
    "blanks between attributes": lambda n: redact(f"<a><UserPassword{' ' * 9 * n}b='1'/></a>".encode()),
    "attributes": lambda n: redact(f"<a><UserPassword{attributes(n // 4)}>x</UserPassword></a>".encode()),
    "a long attribute": lambda n: redact(f"<a><UserPassword a='{' =' * 9 * n}'>x</UserPassword></a>".encode()),
    "passwords": lambda n: redact(f"<a>{'<UserPassword>x</UserPassword>' * (n // 4)}</a>".encode()),
    "an element's text": lambda n: parse_ovf_env(f"<a>{'x ' * 20 * n}</a>".encode()),
    "a key's comment": lambda n: normalise_keys(f"{KEY} {'x ' * n}", where="key 0"),
    "blanks before a key": lambda n: normalise_keys(" " * 8 * n + KEY, where="key 0"),
    "options of a key": lambda n: normalise_keys(f"{'a,' * n}{KEY}", where="key 0"),
    "quotes of a key's option": lambda n: normalise_keys('command="' + '\\"' * n + f'" {KEY}', where="key 0"),
    "lines of keys": lambda n: merge_keys(f"{KEY} x\n" * n, [KEY]),
    "other lines beside keys": lambda n: merge_keys("# \t\n" * 4 * n, [KEY]),
    "accounts": lambda n: find_account("a:x:1:1::/:\n" * 4 * n, "b"),
    "colons of an account": lambda n: find_account("b" + ":" * 40 * n, "b"),
    "digits of an account": lambda n: find_account(f"b:x:{'9' * 40 * n}:1::/:", "b"),
    "groups": lambda n: existing_groups("a:x:1:\n" * 4 * n),
    "members of a group": lambda n: groups_of(f"a:x:1:{'b,' * 20 * n}", "c"),
    "JSON that is deep": lambda n: parse_instance(b'{"compute":' + b"[" * 20 * n),
    "blanks in JSON": lambda n: parse_instance(b'{"compute":' + b" " * 40 * n + b"{}}"),
    "a failure's data": lambda n: encode_failure("x", {"detail": "'|" * 20 * n}, agent="a", vm_id="v", timestamp="t"),
}


def seconds(work: Callable[[int], object], length: int) -> float:
    start = time.process_time()
    with suppress(ProvisioningError):
        work(length)
    return time.process_time() - start


@pytest.mark.parametrize("name", WORST)
def test_the_worst_text_of_its_kind_takes_time_in_proportion(name: str) -> None:
    length, once, eight = 2_000, float("inf"), float("inf")
    # The machine may be doing something else, so the best of several counts: what is quadratic is so each time.
    for _ in range(8):
        once, eight = min(once, seconds(WORST[name], length)), min(eight, seconds(WORST[name], 8 * length))
        if eight <= 12 * max(once, 0.002):
            return
    pytest.fail(f"{once:.4f} s became {eight:.4f} s")
