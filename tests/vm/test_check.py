"""What boots and provisions itself has nothing that `minprov check` says would keep it from that."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from minprov.image.checks.outcome import run_checks
from minprov.image.findings import Severity
from minprov.image.subject import Subject
from minprov.image.tree import Tree
from tests.vm import recipes
from tests.vm.image import ensure_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.vm.recipes import Recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

# What `make test-vm` has made already; the others are made for `make test-vm-all`.
CHECKED = (
    recipes.SYSVINIT,
    *(
        pytest.param(recipe, marks=pytest.mark.long)
        for recipe in (
            *(recipes.MMDEBSTRAP, recipes.APPLIANCE, recipes.NETWORKD),
            *(recipes.NETWORK_MANAGER, recipes.BUSYBOX),
        )
    ),
)
# What is true of the guests, and does not keep them from coming up: the packages' scripts have made host keys in them.
LABORATORY = {"host-keys"}


@pytest.mark.parametrize("recipe", CHECKED, ids=lambda recipe: recipe.name)
def test_nothing_fails_in_what_boots(recipe: Recipe, tmp_path: Path) -> None:
    disk = ensure_image(recipe).disk
    offset = _offset_of_root(disk) if recipe.bootloader else 0
    subprocess.run(["mount", "-o", f"ro,loop,norecovery,offset={offset}", disk, tmp_path], check=True)
    try:
        outcome = run_checks(Subject(Tree(str(tmp_path))))
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    failed = [finding for finding in outcome.findings if finding.severity is Severity.FAILS]
    assert [finding for finding in failed if finding.id not in LABORATORY] == []


def _offset_of_root(disk: Path) -> int:
    table = subprocess.run(["sfdisk", "--dump", disk], capture_output=True, text=True, check=True).stdout
    line = table.strip().splitlines()[-1]
    return int(line.partition("start=")[2].partition(",")[0]) * 512
