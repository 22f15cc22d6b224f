"""A change of sshd's configuration beside the other steps; the scenarios have what is changed and why."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from minprov.actions import ConfigureSshd
from minprov.errors import ProvisioningError
from minprov.machine import tools
from minprov.machine.system import System
from minprov.properties import sshd, sshd_settings

# Takes a change where it is a draft, and refuses it in its place, when told to go on.
SSHD = """#!/bin/sh
case "$*" in
*-T*) grep -h PasswordAuthentication {drop_in} {config} | head -n 1 ;;
*-f*) ;;
*) echo tried >{tried}; read -r answer <{answered}; exit 255 ;;
esac
"""


@pytest.mark.root
def test_a_change_that_is_only_tried_is_told_to_no_other_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_in, config = tmp_path / "minprov.conf", tmp_path / "sshd_config"
    tried, answered = tmp_path / "tried", tmp_path / "answered"
    config.write_text(f"Include {tmp_path}/*.conf\nPasswordAuthentication yes\n")
    program = tmp_path / "sshd"
    program.write_text(SSHD.format(drop_in=drop_in, config=config, tried=tried, answered=answered))
    program.chmod(0o755)
    os.mkfifo(tried)
    os.mkfifo(answered)
    for module in (sshd, sshd_settings):
        monkeypatch.setattr(module, "CONFIG", str(config))
    monkeypatch.setattr(sshd, "DRAFT", str(tmp_path / "draft"))
    monkeypatch.setattr(sshd_settings, "PRIVILEGE_SEPARATION_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(tools, "PATH", f"{tmp_path}:{tools.PATH}")

    async def change_and_ask() -> Sequence[sshd_settings.Settings] | None:
        system = System()
        action = ConfigureSshd("azureuser", password_authentication=False, drop_in=str(drop_in))
        change = asyncio.create_task(sshd.converge(system, action))
        await asyncio.to_thread(tried.read_text)
        assert "PasswordAuthentication no" in drop_in.read_text()
        question = asyncio.create_task(sshd_settings.ask_sshd(system, "azureuser"))
        await asyncio.sleep(0)  # the question begins
        await asyncio.to_thread(answered.write_text, "no\n")
        with pytest.raises(ProvisioningError, match="sshd"):
            await change
        return await question

    settings = asyncio.run(change_and_ask())
    assert settings
    assert settings[0].is_on("passwordauthentication")
