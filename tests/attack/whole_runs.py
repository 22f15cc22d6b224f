"""Whole runs that are attacked: by the disc, by answers of the platform, and by a user beside the program.

Each is a scenario as in tests/cases, on a machine of its own with the real tools. What has to hold is the same for all:
nothing of root's is changed or read out, no key becomes the administrator's that was not asked for, Ready is true, and
however it ends, the platform or the console is told.
"""

from __future__ import annotations

import base64
import itertools
import random
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minprov.emulator.media import media_files
from minprov.emulator.tables import read_table
from minprov.emulator.vm import SAMPLE_VM
from minprov.errors import Reason
from tests.faults.campaign import CAMPAIGN

from .adversary import KEY
from .readers import GOAL_STATE, INSTANCE, draw

if TYPE_CHECKING:
    from collections.abc import Iterator

ADVERSARY = Path(__file__).parent / "adversary.py"
PYTHON = "/opt/minprov-tests/environment/bin/python"
CANARY = "canary-of-root-8c1f"
STATUSES = {0, *(reason.exit_status for reason in Reason)} - {Reason.INTERNAL.exit_status}
PUBLIC_KEY = re.compile(r"(?:ssh|ecdsa|sk)-[\w@.-]+ (AAAA[\w+/=]+)")
# What a run may change of root's; harness/changes.py leaves out what the account tools keep for themselves.
ROOTS = re.compile(
    r"/etc/(passwd|shadow|group|hostname|hosts|sudoers|sudoers\.d/90-minprov|ssh/sshd_config(\.d/50-minprov.conf)?)"
    r"|/var/lib/(minprov|hyperv)(/.*)?|/run/(sshd|minprov.*)|/etc/ssh/ssh_host_.*|/home"
)
# Of root's, what an adversary would like to have, to change, or to have changed.
TARGETS = ("/etc/shadow", "/etc/precious", "/root/private/notes", "/root/private", "/etc/cron.d", "/etc/ssh")
WATCHED = "/etc/precious /root/private /etc/cron.d /etc/ssh /etc/sudoers /etc"
PREPARE = f"""
echo {CANARY} >/etc/precious; chmod 600 /etc/precious
echo '{CANARY}:*:20000:0:99999:7:::' >>/etc/shadow
mkdir -p -m 700 /root/private; echo {CANARY} >/root/private/notes; echo {CANARY} >/root/private/authorized_keys
mkdir -p -m 755 /srv/adversary /etc/cron.d
stat --format='%n %U %a' {WATCHED} >/srv/before
cat >/srv/adversary.py <<'END'
{{program}}
END
"""
AFTER = f"""
kill $(cat /srv/adversary.pid) 2>/dev/null
for i in $(seq 50); do [ -e /srv/adversary/count ] && break; sleep 0.1; done
sed 's/^/read out: /' /srv/adversary/read-out 2>/dev/null
echo swaps $(cat /srv/adversary/count); tail -n 1 /srv/adversary.log
stat --format='%n %U %a' {WATCHED} | cmp - /srv/before && echo same
grep -qx {CANARY} /etc/precious && echo whole
find /home /srv /tmp -xdev -user {{user}} -type f -exec grep -l {CANARY} {{{{}}}} + 2>/dev/null | sed 's/^/read out: /'
for u in azureuser; do sudo -n -l -U $u 2>&1 | grep -q 'ALL' && echo may; done
"""


class Attack(NamedTuple):
    """An attack on one run: of what kind, and the scenario."""

    kind: str
    scenario: dict[str, Any]
    document: bytes = b""
    """The ovf-env of the disc, which has all keys that are asked for."""


class Held(NamedTuple):
    """What came of it: swaps of an adversary, whether Ready was told, and what did not hold."""

    swaps: int
    ready: bool
    broken: list[str]


def attacks(number: int, documents: int, adversaries: int) -> Iterator[Attack]:
    """Return attacks for a seed: so many by mutated discs and answers, so many by an adversary, in turn."""
    chance = random.Random(number)  # the same for the same seed
    yield from itertools.islice(_by_platform(number, chance, documents), documents)
    yield from itertools.islice(_by_adversary(number, chance), adversaries)


def judge(attack: Attack, result: dict[str, Any]) -> Held:
    """Return what of that which has to hold did not."""
    if "observed" not in result:
        return Held(0, False, [str(result.get("broken") or result.get("unavailable"))])
    (seen,) = result["observed"]
    after = seen.get("after", [])
    swaps = next((int(line.split()[1]) for line in after if re.fullmatch(r"swaps \d+", line)), 0)
    ready = bool(seen["health"]) and seen["health"][-1].endswith(": Ready")
    by_adversary = "adversary" in attack.kind
    # What he planted under such a name, and put back, is not the program's.
    broken = [fault for fault in result["faults"] if not (by_adversary and fault.startswith("left behind: /home"))]
    if seen["exit_status"] not in STATUSES:
        broken.append(f"exit status {seen['exit_status']}: {seen.get('reason')} {seen.get('data')}")
    broken += _told(seen, ready=ready)
    broken += _changed(seen)
    broken += _keys(attack, seen)
    if by_adversary:
        if not swaps or any("Error" in line for line in after):
            broken.append(f"the adversary did not go on: {after}")
        if not {"same", "whole"}.issubset(after):
            broken.append(f"of root's is changed: {after}")
        broken += [line for line in after if line.startswith("read out")]
        if ready and "may" not in after:
            broken.append("Ready, and sudo does not let the administrator become root")
    return Held(swaps, ready, broken)


def _told(seen: dict[str, Any], *, ready: bool) -> Iterator[str]:
    if not seen.get("console"):
        yield "nothing is on the console"
    if ready and seen["exit_status"] and seen.get("reason") != Reason.REPORT_FAILED.phrase:
        yield f"Ready, and exit status {seen['exit_status']}: {seen.get('reason')}"
    if not ready and seen["exit_status"] == 0:
        yield f"exit status 0, and the platform was told {seen['health']}"
    if ready and any(state.startswith("failed") and "(" not in state for state in seen["actions"].values()):
        yield f"Ready, and what is required failed: {seen['actions']}"


def _changed(seen: dict[str, Any]) -> Iterator[str]:
    for path, lines in seen["changes"].items():
        owner = re.search(r" \d{4} (\d+):", lines[0])
        if path.startswith(("/home/", "/srv/", "/tmp/", "/run/log-in-key")) and path != "/srv/before":
            continue
        if not ROOTS.fullmatch(path):
            yield f"changed: {path}: {lines}"
        elif lost := [line for line in lines if line.startswith(("-root", "removed"))]:
            yield f"of root's is lost: {path}: {lost}"
        elif owner and owner[1] != "0":
            yield f"of somebody else's now: {path}: {lines}"


def _keys(attack: Attack, seen: dict[str, Any]) -> Iterator[str]:
    asked = "".join(attack.document.decode(errors="replace").split())
    for path, lines in seen["changes"].items():
        if "authorized_keys" in path or path.startswith("/srv/keys/"):
            if path.startswith("/srv/") and not re.search(r" (0|1000):", lines[0]):
                continue  # a file of the adversary's own, which sshd refuses
            for line in lines[1:]:
                for blob in PUBLIC_KEY.findall(line) if line.startswith("+") else ():
                    if blob not in asked:
                        yield f"a key that was not asked for, in {path}: {line}"


# -- by the disc and by answers ----------------------------------------------------------------------------------------


def _by_platform(number: int, chance: random.Random, count: int) -> Iterator[Attack]:
    ovf_env = media_files(SAMPLE_VM)["ovf-env.xml"]
    documents = draw(ovf_env, number, count)
    goal_states, instances = draw(GOAL_STATE, number, count), draw(INSTANCE, number, count)
    steps = list(read_table(CAMPAIGN)["matrix"]["answers"]["faults"].values())  # type: ignore[index]
    for document, goal_state, instance in itertools.cycle(zip(documents, goal_states, instances, strict=False)):
        encoded = base64.b64encode(document).decode()
        yield Attack("disc, mutated ovf-env", _scenario(**{"ovf-env": {"base64": encoded}}), document)
        cut = chance.randrange(400_000)
        key = chance.choice(["media-cut-at", "media-fails-at"])
        yield Attack("disc, cut short or unreadable", _scenario(media="image", **{key: cut}), ovf_env)
        body = {"base64": base64.b64encode(goal_state).decode()}
        answers = {"goal-state": [{"body": body, "times": chance.choice([1, "forever"])}]}
        yield Attack("answer, mutated goal state", _scenario(faults=answers), ovf_env)
        body = {"base64": base64.b64encode(instance).decode()}
        answers = {"instance": [{"body": body, "times": chance.choice([1, "forever"])}]}
        alone = {"media": "none", "without": ["password"], "config": "sources.media-wait = 0.1"}
        yield Attack("answer, mutated IMDS instance, alone", _scenario(faults=answers, **alone), instance + ovf_env)
        places = ["goal-state", "instance", "health", "provisioning-health"]
        several = {
            place: [{**chance.choice(steps), "times": chance.choice([1, 3, "forever"])}]
            for place in chance.sample(places, chance.randrange(1, 4))
        }
        yield Attack("answers, of every fault", _scenario(faults=several), ovf_env)


def _scenario(**keys: object) -> dict[str, Any]:
    return {"rule": "an attack", "arguments": ["--timeout", "6"], "within": 20.0, **keys}


# -- by a user beside it -----------------------------------------------------------------------------------------------

OWN = "useradd -m -s /bin/bash azureuser"
PLACES: dict[str, tuple[str, str, str]] = {
    # what he swaps: how the machine is prepared, who he is, the place
    "his authorized_keys": (
        f"{OWN}; install -d -o azureuser -m 700 /home/azureuser/.ssh",
        "azureuser",
        "/home/azureuser/.ssh/authorized_keys",
    ),
    "his .ssh": (OWN, "azureuser", "/home/azureuser/.ssh"),
    "the temporary file of his keys": (
        f"{OWN}; install -d -o azureuser -m 700 /home/azureuser/.ssh",
        "azureuser",
        "/home/azureuser/.ssh/.authorized_keys.minprov",
    ),
    "his home, in a directory of his": (
        "useradd -M -d /srv/his/home -s /bin/bash azureuser; install -d -o azureuser /srv/his",
        "azureuser",
        "/srv/his/home",
    ),
    "a home that is left over": (
        "install -d -o 1234 /home/azureuser; useradd -u 1234 -M stranger",
        "stranger",
        "/home/azureuser/.ssh",
    ),
    "homes where all may write": ("chmod 777 /home", "nobody", "/home/azureuser"),
    "the temporary home where all may write": ("chmod 777 /home", "nobody", "/home/.azureuser.minprov"),
    "keys where all may write": (
        "echo 'AuthorizedKeysFile /srv/keys/%u' >>/etc/ssh/sshd_config; install -d -m 1777 /srv/keys",
        "nobody",
        "/srv/keys/azureuser",
    ),
    "names of processes": (
        "ip link add eth0 type bridge; ip addr add 10.0.0.4/24 dev eth0; ip link set eth0 up; "
        "ip route add default via 10.0.0.1",
        "nobody",
        "-",
    ),
}


def _by_adversary(number: int, chance: random.Random) -> Iterator[Attack]:
    ovf_env = media_files(SAMPLE_VM)["ovf-env.xml"]
    program = ADVERSARY.read_text(encoding="utf-8")
    for turn in itertools.count():
        for what, (prepare, user, place) in PLACES.items():
            targets = " ".join(chance.sample(TARGETS, len(TARGETS)))
            start = textwrap.dedent(f"""
                chown {user} /srv/adversary
                setpriv --reuid={user} --regid=$(id -g {user}) --clear-groups {PYTHON} /srv/adversary.py \\
                    {number + turn} /srv/adversary/count {place} {targets} >/srv/adversary.log 2>&1 </dev/null &
                echo $! >/srv/adversary.pid
                sleep 0.3
            """)
            scenario = _scenario(
                prepare=PREPARE.format(program=program) + prepare + start, after=AFTER.format(user=user)
            )
            asked = ovf_env + KEY.encode() if user == "azureuser" else ovf_env  # who may have a key of his own
            yield Attack(f"adversary, {what}", scenario, asked)
