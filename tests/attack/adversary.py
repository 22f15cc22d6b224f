"""An unprivileged user of the machine, who swaps what the program may come upon as fast as he can: run as a program.

    adversary.py SEED COUNT PLACE [ROOTS…]

PLACE is a path that he may replace; ROOTS are paths of root's, to which he puts links and hard links there. Without a
PLACE ("-") he starts one process after another with the name of a program of the system's. Begins when the program
begins, ends with it or on SIGTERM, and writes to COUNT how many swaps there were. It is copied into the machine alone.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

CANARY = b"canary-of-root"  # is in every file of root's
PROGRAM = b"\0-m\0minprov\0"
NAMES = ("dhclient", "dhcpcd", "udhcpc", "NetworkManager", "systemd-networkd", "sshd", "waagent", "minprov")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN6R3kXoWw6vvVYb2mNaTnjBz2O2tXQ4Jc0m5Zk4c7dE adversary\n"


def main() -> None:
    """Swap until the end."""
    seed, count, place, *roots = sys.argv[1:]
    chance = random.Random(seed)  # the same for the same seed
    swaps = 0

    def end(*_: object) -> NoReturn:
        """Leave the count whole, also if this comes in the middle of itself."""
        Path(count).write_text(f"{swaps}\n", encoding="ascii")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    program = wait_for_program()
    while program.exists():
        if place == "-":
            pretend(chance, Path(count).parent, roots)
        else:
            swap(chance, Path(place), roots, Path(count).with_name("read-out"))
        swaps += 1
    end()


def wait_for_program() -> Path:
    """Return the program's directory in /proc, which is there as long as the program is."""
    while True:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdecimal() and PROGRAM in (entry / "cmdline").read_bytes():
                    return entry
        time.sleep(0.002)


def look(place: Path, found: Path) -> None:
    """Note what of root's can be read where only files of others than root are: it may be gone at the end."""
    for path in (place, place / "authorized_keys"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with open(descriptor, "rb") as stream:
                if CANARY in stream.read():
                    found.write_bytes(os.fsencode(path) + b"\n")


def swap(chance: random.Random, place: Path, roots: list[str], found: Path) -> None:
    """Have something else at the place, by a rename where that can be done."""
    new = place.with_name(f"{place.name}.new")
    remove(new)
    root = chance.choice(roots)
    with suppress(OSError):
        match chance.randrange(15):
            case 1:
                os.link(root, new)  # refused where fs.protected_hardlinks is on
            case 2:
                os.mkfifo(new, 0o666)
            case 3:
                new.mkdir(0o700)
            case 4:
                new.mkdir(0o700)
                (new / "authorized_keys").symlink_to(root)
            case 5:
                new.write_text(KEY, encoding="ascii")
            case 6:
                look(place, found)
                remove(place)
                return
            case _:  # what does most harm where it is followed
                new.symlink_to(root)
    look(place, found)
    if any(not path.is_symlink() and path.is_dir() for path in (new, place)):
        remove(place)
    with suppress(OSError):
        new.rename(place)


def remove(path: Path) -> None:
    """Remove whatever is there, if it can be removed."""
    with suppress(OSError):
        if not path.is_symlink() and path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def pretend(chance: random.Random, own: Path, roots: list[str]) -> None:
    """Be a process with the name and the arguments of another program, for a moment."""
    name, root = chance.choice(NAMES), chance.choice(roots)
    program = own / name
    if not program.exists():
        shutil.copy("/bin/sh", program)
    child = os.fork()
    if child == 0:
        with suppress(OSError):
            os.execv(program, [name, "-c", "sleep 0.1", "-lf", root, "-pf", root, "-cf", root, "eth0"])
        os._exit(1)
    with suppress(ChildProcessError):
        for _ in range(10):
            os.waitpid(-1, os.WNOHANG)


if __name__ == "__main__":
    main()
