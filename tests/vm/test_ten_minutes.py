"""docs/ten-minutes.md, word for word: its commands in one shell, in an empty directory, with a clone of this."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.vm.image import PROJECT
from tests.vm.lab import ARTEFACTS

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(3600)]

PAGE = PROJECT / "docs/ten-minutes.md"
# How bash begins the lines in which it shows the commands, so that the log tells when each began; to be set inside:
# root's takes it from no environment.
TRACE = "PS4='+ ${SECONDS} s: '"


def read_commands(page: str) -> list[str]:
    """Return what somebody who follows the page types; the blocks' other lines are what is answered."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return re.findall(r"^[$#] (.*)$", "".join(blocks), re.MULTILINE)


def outside_variables() -> dict[str, str]:
    """Return the environment without what leads to this test's own Python and settings."""
    ways_out = re.compile("PATH$|PIP_|SSL_CERT_|(https?|no)_proxy$", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if ways_out.match(name)}


def test_the_page_leads_from_nothing_to_a_proven_image(tmp_path: Path) -> None:
    commands = "\n".join(read_commands(PAGE.read_text())).replace("git clone … ", f"git clone {PROJECT} ")
    log = ARTEFACTS / "ten-minutes.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        done = subprocess.run(
            ["bash", "-euxc", f"{TRACE}\n{commands}"],
            cwd=tmp_path,
            env={**outside_variables(), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = log.read_text()
    assert done.returncode == 0, said[-4000:]
    assert "appliance.vhd: a fixed VHD of " in said
    assert "  generation 2 can start it (x64)\n" in said
    assert "report   Ready\n" in said
    assert "login    azureuser by key\n" in said
    assert said.splitlines()[-1].startswith("Provisioned: Ready after ")
