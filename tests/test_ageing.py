"""Ageing as PAM evaluates it."""

from __future__ import annotations

import pytest

from minprov.formats.ageing import EXPIRED, MUST_CHANGE, find_ageing_fault

TODAY = 20000


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ("19999:0:99999:7:::", None),
        (":0:60:7:::", None),
        ("0:0:99999:7:::", MUST_CHANGE),
        ("19940:0:60:7:::", None),
        ("19939:0:60:7:::", MUST_CHANGE),
        ("19939:0:60:7:30::", EXPIRED),
        ("20100:0:60:7:::", None),
        ("19999:0:99999:7::20001:", None),
        ("19999:0:99999:7::20000:", EXPIRED),
        ("19999:0:99999:7::0:", EXPIRED),
        ("", None),
    ],
)
def test_fault_is_what_pam_says(fields: str, fault: str | None) -> None:
    assert find_ageing_fault(f"other:*:0:0:0:0:0:0:\nazureuser:*:{fields}\n", "azureuser", TODAY) == fault
