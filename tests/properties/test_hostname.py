"""The image's own name in /etc/hosts becomes the new one, and nothing else does."""

import pytest

from minprov.properties.hostname import renamed


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("127.0.1.1 image", "127.0.1.1 web-01"),
        ("127.0.1.1\timage.local image", "127.0.1.1\tweb-01.local web-01"),
        ("::1 localhost image", "::1 localhost web-01"),
        (" 127.0.0.1 image localhost", " 127.0.0.1 web-01 localhost"),
        ("127.0.1.1 images my-image image-2 an.image", None),
        ("10.0.0.4 image", None),
        ("fe80::1 image", None),
        ("# 127.0.1.1 image", None),
        ("127.0.1.1 other # image", None),
        ("127.0.1.1", None),
    ],
)
def test_only_the_old_name_of_a_loopback_address_is_replaced(line: str, changed: str | None) -> None:
    for end in ("", "\n", "\n\n# end"):
        assert renamed(line + end, "image", "web-01") == (changed or line) + end


def test_a_name_is_no_pattern() -> None:
    assert renamed("127.0.1.1 a.b axb\n", "a.b", "c") == "127.0.1.1 c axb\n"
