"""Trees that are checked have loaders that Microsoft has signed, as far as this goes without its key."""

from __future__ import annotations

import pytest

from minprov.image import signatures
from tests.image.signing import MICROSOFT, fingerprint


@pytest.fixture(autouse=True)
def _authority_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "MICROSOFT", signatures.MICROSOFT | {fingerprint(MICROSOFT)})
