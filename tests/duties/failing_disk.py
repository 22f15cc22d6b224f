"""Run the program on a disk that fails: ``python -m tests.duties.failing_disk IMAGE AT OPERATIONS POLICY``.

From byte AT on, the operations, `read`, `write` or both, answer with EIO: a loop device hands on what a FUSE file says.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.duties.loop import loop_device
from tests.duties.test_whole_runs import MOUNT_POINT, PROGRAM, write_config
from tests.harness.disk import READ, WRITE, mount_faulty_file


def main(image: Path, at: int, operations: str, policy: str) -> int:
    """Do so, take the mount away, and return the exit status."""
    failing = tuple(number for name, number in (("read", READ), ("write", WRITE)) if name in operations)
    mount_faulty_file(str(image), bytearray(image.read_bytes()), at=at, operations=failing)
    with loop_device(image) as device:
        config = write_config(image.parent, device, policy=policy)
        if policy == "best-effort":
            config.write_text(config.read_text().replace('"required"', '"best-effort"'))
        done = subprocess.run([*PROGRAM, "resource-disk", "--json", "--config", config], check=False)
        if Path(MOUNT_POINT).is_mount():
            subprocess.run(["umount", MOUNT_POINT], check=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
