"""What a check costs: a large image takes seconds and little memory, whatever its initramfs unpacks to."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.image.recorded import archive, compressed, make_tree

MIB = 1 << 20
INITRAMFS = 300 * MIB
LIMIT = 10.0
MEMORY = 150 * MIB
# The kernel's own figure of the program: wait4(2) has that of the process that started it, if it is larger.
MEASURED = """
import sys
from minprov.cli import run
status = run(sys.argv[1:])
sys.stderr.write(open("/proc/self/status").read())
sys.exit(status)
"""


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip"])
def test_a_large_tree_takes_seconds_and_little_memory(compression: str, tmp_path: Path) -> None:
    make_tree("debian", tmp_path)
    modules = "usr/lib/modules/6.1.0-27-cloud-amd64/kernel/drivers"
    firmware = {f"usr/lib/firmware/{number}.bin": "firmware " * (MIB // 9) for number in range(INITRAMFS // MIB)}
    names = [f"{modules}/{name}.ko" for name in ("hv_vmbus", "hv_storvsc", "nvme", "nvme-core")]
    data = archive(firmware | dict.fromkeys(names, ""))
    (tmp_path / "boot/initrd.img-6.1.0-27-cloud-amd64").write_bytes(compressed(data, compression))
    for number in range(2000):
        (tmp_path / f"var/log/{number}.log").write_text("line\n")
    with (tmp_path / "usr/large").open("wb") as file:
        file.truncate(2 << 30)
    began = time.monotonic()
    argv = [sys.executable, "-c", MEASURED, "check", "--root", str(tmp_path)]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    assert time.monotonic() - began < LIMIT
    peak = int(done.stderr.partition("VmHWM:")[2].split()[0]) << 10
    assert peak < MEMORY
