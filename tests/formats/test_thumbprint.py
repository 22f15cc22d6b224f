"""The name of a certificate, in the forms in which people and the platform write it."""

import pytest

from minprov.formats.thumbprint import normalise_thumbprint

NAME = "D99BEE4F6D555C7CF551DC3AE3527E1EAF3524C9"


@pytest.mark.parametrize("text", [NAME, NAME.lower(), f" {NAME}\n", ":".join(NAME[i : i + 2] for i in range(0, 40, 2))])
def test_a_name_is_known_in_every_form(text: str) -> None:
    assert normalise_thumbprint(text) == NAME


@pytest.mark.parametrize("text", ["", NAME[:-1], NAME + "0", NAME[:-1] + "G", "../" + NAME])
def test_what_is_no_name_is_none(text: str) -> None:
    assert normalise_thumbprint(text) is None
