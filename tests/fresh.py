"""Do what the README says on fresh machines: a minimal Debian, a clone, the two commands; as root and as a user.

`make test-fresh` runs this. A machine is a tree made by mmdebstrap with nothing but what the README says to install, in
namespaces of its own. It has the host's kernel and devices, and what the host needs to reach the package registries.

An `odd` machine is like those of people who have been at it for a while: accounts, locale, time zone, umask and a path
with blanks. There the tests run without network or IPv6, and in random order. On one that is `twice`, two clones run
their tests at once. The others have the locale C.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
LOGS = REPOSITORY / "build/fresh"
CACHE = Path("/var/cache/minprov-fresh")
CLONED = "srv/minprov.git"
ALL = ("bookworm:user", "bookworm:root:odd", "trixie:user:odd", "trixie:root", "trixie:root:twice")
AT_A_TIME = max(1, (os.cpu_count() or 1) // 2)  # a suite has processes beside it, and deadlines
LIMIT = 1800.0
"""Seconds for one machine."""
MOST_LINES = 60
"""Of what tests that failed have to say, beside the end of the log."""

# How the host reaches the registries: the machine is to reach them by the same ways.
NETWORK_FILES = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
NETWORK_VARIABLES = re.compile("PIP_|SSL_CERT_|(https?|no)_proxy$", re.IGNORECASE)

ENTER = """
cd "$0"
mount --bind . .
cd "$0"
mount --rbind /dev dev
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 run run
mkdir run/lock
pivot_root . mnt
umount --lazy /mnt
cd /
exec "$@"
"""
WITHOUT_NETWORK = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up"
ODD_HOST = """
apt-get -qq update
apt-get -qq install --no-install-recommends locales >/dev/null 2>&1
localedef -i de_DE -f UTF-8 de_DE.UTF-8
for number in 1 2 3 4 5 6 7; do useradd --system "other$number"; done
groupadd --gid 990 wheel
groupadd azure
useradd --create-home --shell /bin/bash --groups wheel,azure azureuser
printf 'UID_MIN 5000\\nUMASK 027\\n' >>/etc/login.defs
"""
ODD_SHELL = "umask 077; export LC_ALL=de_DE.UTF-8 TZ=Asia/Kathmandu"
PLAIN_SHELL = "export LC_ALL=C"


class Words(NamedTuple):
    """What the README says: the packages to install, and the two commands."""

    packages: list[str]
    demo: str
    test: str


class Machine(NamedTuple):
    """A release of Debian, who runs the commands, and what else there is to it: `odd`, `twice` or nothing."""

    release: str
    user: str
    kind: str = ""

    @property
    def name(self) -> str:
        """Return the name, as a file has it."""
        return "-".join(filter(None, self))

    @property
    def odd(self) -> bool:
        """Tell whether it is a machine of somebody who has been at it for a while."""
        return self.kind == "odd"


def read_words(readme: str) -> Words:
    """Return what the README says; raises ValueError where it does not say it as it is understood here."""
    packages = re.findall(r"apt-get install ([a-z0-9 -]+[a-z0-9])", readme)
    commands = [line for line in re.findall(r"^\$ (.*)$", readme, re.MULTILINE) if re.search(r"\bmake\b", line)]
    if len(packages) != 1:
        raise ValueError(f"README.md must say once what to install: {packages}")
    if len(commands) != 2 or commands[0].split(" … ")[0] != "git clone" or commands[1] != "make test":
        raise ValueError(f"README.md must have two commands, a clone with its demo and `make test`: {commands}")
    return Words(packages[0].split(), *commands)


def make_tree(release: str, packages: list[str]) -> Path:
    """Return the archive of a minimal Debian with the packages, made once."""
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    archive = CACHE / f"{release}-{key}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as directory:
            new = Path(directory) / archive.name
            command = [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                f"--include={','.join(packages)}",
                release,
                str(new),
            ]
            subprocess.run(command, check=True)
            new.rename(archive)
    return archive


def run_in(root: Path, user: str, script: str, log: IO[str], *, network: bool = True, limit: float = LIMIT) -> None:
    """Run a shell script in a tree, as a user, from the home directory."""
    command = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    if not network:
        command += ["--net"]
    # The host's ip(8): a minimal Debian has none.
    command += ["sh", "-euc", ("" if network else f"{WITHOUT_NETWORK}\n") + ENTER, str(root)]
    command += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env", "env"]
    command += [f"{name}={value}" for name, value in os.environ.items() if NETWORK_VARIABLES.match(name)]
    command += ["sh", "-euc", f"cd; {script}"]
    log.write(f"+ {user}: {script}\n")
    log.flush()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=limit)


def try_machine(machine: Machine, words: Words, archive: Path, log: IO[str]) -> None:
    """Make a machine and do on it what the README says; raises CalledProcessError or TimeoutExpired."""
    place, shell = ("with blanks ä", ODD_SHELL) if machine.odd else (".", PLAIN_SHELL)
    user = "root" if machine.user == "root" else "azureuser" if machine.odd else "newcomer"
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=f"{machine.name}-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        subprocess.run(["tar", "--extract", "--file", archive, "--directory", root, "--numeric-owner"], check=True)
        for name in NETWORK_FILES:
            if os.path.exists(f"/{name}"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(f"/{name}", root / name)
        subprocess.run(["git", "clone", "--quiet", "--bare", REPOSITORY, root / CLONED], check=True)
        (root / "etc/gitconfig").write_text("[safe]\n\tdirectory = *\n")
        if machine.odd:
            run_in(root, "root", ODD_HOST, log)
        elif user != "root":
            run_in(root, "root", f"useradd --create-home {user}", log)
        demo = words.demo.replace("…", f"/{CLONED}")
        run_in(root, user, f"{shell}; mkdir -p '{place}'; cd '{place}'; {demo}", log)
        clone = f"{shell}; cd '{place}/minprov'"
        if machine.odd:
            run_in(root, user, f"{clone}; .venv/bin/python -m pip install --quiet pytest-randomly", log)
            if user == "root":
                run_in(root, user, f"{clone}; tests/ensure-packages tests/apt-packages.txt; tests/make-busybox", log)
        test = words.test
        if machine.kind == "twice":
            run_in(root, user, f"{shell}; mkdir again; cd again; {demo}", log)
            again = f"(cd ~/again/minprov; {test}) >~/again.log 2>&1 &"
            both = "there=0; wait $! || there=$?; cat ~/again.log; test $here$there = 00"
            test = f"{again} here=0; {test} || here=$?; {both}"
        run_in(root, user, f"{clone}; {test}", log, network=not machine.odd)


def main(*names: str) -> int:
    """Try the machines that are named as `release:user[:kind]`, all of them if none is."""
    words = read_words(README.read_text(encoding="utf-8"))
    machines = [Machine(*name.split(":")) for name in names or ALL]
    archives = {release: make_tree(release, words.packages) for release in {machine.release for machine in machines}}
    LOGS.mkdir(parents=True, exist_ok=True)

    def try_and_tell(machine: Machine) -> bool:
        started = time.monotonic()
        path = LOGS / f"{machine.name}.log"
        with path.open("w", encoding="utf-8") as log:
            try:
                try_machine(machine, words, archives[machine.release], log)
                error = None
            except subprocess.SubprocessError as failure:
                error = failure
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        result = "failed" if error else lines[-1].strip("= ")
        print(f"{machine.name}: {result} ({time.monotonic() - started:.0f} s)", flush=True)
        if error:
            asserted = [line for line in lines if re.match(r"E  |FAILED |ERROR ", line)]
            told = [*asserted[:MOST_LINES], *lines[-40:], f"The whole log is {shlex.quote(str(path))}."]
            print(*told, sep="\n", flush=True)
        return error is None

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return 0 if all(list(pool.map(try_and_tell, machines))) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
