"""TOML files into dataclasses: each field has a converter, each mistake an error that names file, key and nearest key.

Keys are the fields' names with dashes for underscores. A converter raises TypeError or ValueError with a sentence that
continues "the value …"; paths in a file are relative to it.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from minprov.errors import ProvisioningError, Reason
from minprov.model import Secret, SshPublicKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Convert = Callable[[object, Path], Any]


def read_table(path: str | Path) -> dict[str, object]:
    """Return a TOML file as a table.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProvisioningError(Reason.CONFIG_INVALID, file=path, detail=error) from error


def convert_table(
    table: Mapping[str, object], converters: Mapping[str, Convert], *, file: Path, within: str = ""
) -> dict[str, Any]:
    """Return a table's values by field name, each made by its converter; `within` is the table's place in the file.

    Raises: ProvisioningError(CONFIG_INVALID), naming the file and the key.
    """
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in converters or "_" in key:
            raise unknown_key(key, (known.replace("_", "-") for known in converters), file=file, within=within)
        try:
            values[name] = converters[name](value, file.parent)
        except (TypeError, ValueError, OSError) as error:
            raise ProvisioningError(Reason.CONFIG_INVALID, file=file, key=within + key, detail=error) from error
    return values


def unknown_key(key: str, known: Iterable[str], *, file: Path, within: str = "") -> ProvisioningError:
    """Return the error for a key that does not exist, with the one that may have been meant."""
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
    return ProvisioningError(
        Reason.CONFIG_INVALID, file=file, key=within + key, detail="unknown key", nearest=next(iter(nearest), None)
    )


def text(value: object, _directory: Path) -> str:
    """Convert a string."""
    if not isinstance(value, str):
        raise TypeError("must be a string")
    return value


def flag(value: object, _directory: Path) -> bool:
    """Convert a boolean."""
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return value


def number(value: object, _directory: Path) -> int:
    """Convert a whole number that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("must be a whole number, 0 or more")
    return value


def seconds(value: object, _directory: Path) -> float:
    """Convert a duration in seconds, which may be a fraction."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise TypeError("must be a number of seconds, 0 or more")
    return float(value)


def secret(value: object, directory: Path) -> Secret:
    """Convert a string nobody should see by accident."""
    return Secret(text(value, directory))


def content(value: object, directory: Path) -> bytes:
    """Convert bytes: a string, ``{ base64 = "…" }``, or ``{ file = "…" }``."""
    match value:
        case str():
            return value.encode()
        case {"base64": str(encoded), **rest} if not rest:
            try:
                return base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise ValueError(f"is not base64: {error}") from error
        case {"file": str(name), **rest} if not rest:
            return (directory / name).read_bytes()
    raise TypeError('must be a string, { base64 = "…" } or { file = "…" }')


def texts(value: object, directory: Path) -> tuple[str, ...]:
    """Convert a list of strings."""
    if not isinstance(value, list):
        raise TypeError("must be a list of strings")
    return tuple(text(item, directory) for item in cast("list[object]", value))


def text_table(value: object, directory: Path) -> dict[str, str]:
    """Convert a table of strings."""
    if not isinstance(value, dict):
        raise TypeError("must be a table of strings")
    return {key: text(item, directory) for key, item in cast("dict[str, object]", value).items()}


def format_value(value: object) -> str:
    """Return a value as the converters take it in a TOML file."""
    match value:
        case Secret():
            return format_value(value.reveal())
        case bytes():
            return format_value({"base64": base64.b64encode(value).decode()})
        case SshPublicKey():
            return format_value({key: part for key, part in value._asdict().items() if part is not None})
        case dict():
            pairs = cast("dict[str, object]", value).items()
            return "{" + ", ".join(f"{key} = {format_value(item)}" for key, item in pairs) + "}"
        case tuple():
            return "[" + ", ".join(map(format_value, cast("tuple[object, ...]", value))) + "]"
    # A JSON string, number or boolean is one of TOML as well, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
