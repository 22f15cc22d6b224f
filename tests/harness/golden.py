"""What a case is expected to come to, as a file that people review.

The first run may be written as its difference from that of another case, which is written in full, by JSON Merge Patch
(RFC 7396): what is told about a case is then what is special about it. Further runs stand under `again`, in full.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]


def read_expected(directory: Path, like: str | None) -> list[Document]:
    """Return what each run is expected to come to."""
    document = json.loads((directory / "expect.json").read_text(encoding="utf-8"))
    again = document.pop("again", [])
    return [_patched(_reference(directory, like), document), *again]


def write_expected(directory: Path, like: str | None, observed: list[Document]) -> None:
    """Write what each run came to."""
    document = _difference(_reference(directory, like), observed[0])
    if len(observed) > 1:
        document["again"] = observed[1:]
    (directory / "expect.json").write_text(shown(document) + "\n", encoding="utf-8")


def shown(document: object, *, sort: bool = False) -> str:
    """Return a document as the files have it."""
    return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=sort)


def _reference(directory: Path, like: str | None) -> Document:
    return read_expected(directory.parent / like, None)[0] if like else {}


def _patched(target: Document, patch: Document) -> Document:
    result = dict(target)
    for key, value in patch.items():
        if value is None and key in target:
            del result[key]
        elif isinstance(value, dict):
            below = target.get(key)
            result[key] = _patched(below if isinstance(below, dict) else {}, value)
        else:
            result[key] = value
    return result


def _difference(target: Document, result: Document) -> Document:
    patch: Document = {key: None for key in target if key not in result}
    for key, value in result.items():
        if key not in target:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(target[key], dict):
            if below := _difference(target[key], value):
                patch[key] = below
        elif value != target[key]:
            patch[key] = value
    return patch
