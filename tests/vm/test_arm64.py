"""A guest for arm64, by `emulator boot`: UEFI finds the loader, and the static form provisions it."""

from __future__ import annotations

import pytest

from tests.vm.image import ensure_arm64_disk
from tests.vm.test_boot import boot

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(1800)]


def test_an_image_for_arm64_provisions_itself() -> None:
    status, said = boot(ensure_arm64_disk(), "--limit", "300", "--login", "key", "--login", "password")
    assert status == 0, said
    assert "starts as web-01: aarch64, UEFI, " in said
    assert "login    azureuser by key\n" in said
    assert "login    azureuser by password\n" in said
