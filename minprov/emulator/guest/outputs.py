"""What is written for others to read: files, and JUnit's XML for a CI to show."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET  # it is written, not read

from minprov.machine.files import file_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def build_junit(suite: str, cases: Sequence[tuple[str, str | None]]) -> bytes:
    """Return the document for cases by name, each with what went wrong, if anything did."""
    failures = sum(failure is not None for _, failure in cases)
    root = ET.Element("testsuite", name=suite, tests=str(len(cases)), failures=str(failures))
    for name, failure in cases:
        case = ET.SubElement(root, "testcase", classname=suite, name=name)
        if failure is not None:
            ET.SubElement(case, "failure", message=failure)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def write_output(path: Path, contents: bytes) -> None:
    """Write a file that the command line named.

    Raises:
        ProvisioningError: WRITE_FAILED or NOT_PERMITTED, naming it.

    """
    try:
        path.write_bytes(contents)
    except OSError as error:
        raise file_error(error, str(path)) from error
