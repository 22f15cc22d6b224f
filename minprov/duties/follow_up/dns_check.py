"""Whether the platform's DNS knows the VM by its hostname: one question, asked of the platform alone.

It learns the name from the DHCP client. Who has a DNS of their own is answered there and not by the platform, so that
it is unknown means that something may be wrong and no more.
"""

from __future__ import annotations

import asyncio
import secrets
import socket

from minprov.duties.follow_up.dns_messages import NO_SUCH_NAME, Answer, build_query, parse_answer
from minprov.errors import ProvisioningError, Reason
from minprov.limits import DNS_LIMIT, DNS_PAUSE
from minprov.machine.system import System

SERVER = ("168.63.129.16", 53)
MAX_ANSWER = 512  # RFC 1035, 4.2.1
RESOLVERS = ("/run/systemd/resolve/resolv.conf", "/etc/resolv.conf")
"""Where the lease's domains are: systemd-resolved's own list comes first, the other may be its stub's."""


def find_domain(system: System) -> str | None:
    """Return the domain that the lease has given, as resolv.conf(5) has it."""
    for path in RESOLVERS:
        for line in reversed(system.read_text(path).splitlines()):  # the last one counts
            words = line.split()
            if len(words) > 1 and words[0] in ("search", "domain") and words[1] != ".":
                return words[1].rstrip(".")
    return None


async def check(hostname: str, domain: str | None, server: tuple[str, int] = SERVER) -> str:
    """Return what the platform answers for the VM's name.

    Raises:
        ProvisioningError: HOSTNAME_UNKNOWN, where it does not know it, or does not answer.

    """
    if domain is None:
        raise _unknown(hostname, "no domain: the lease has given none")
    name = f"{hostname.partition('.')[0]}.{domain}"
    detail = "no answer"
    try:
        async with asyncio.timeout(DNS_LIMIT):
            while True:
                answer = await _ask(name, server)
                if answer and answer.addresses:
                    return f"{name} is {', '.join(answer.addresses[:4])}"
                if answer:
                    detail = "no such name" if answer.rcode == NO_SUCH_NAME else f"no address, code {answer.rcode}"
                await asyncio.sleep(DNS_PAUSE)
    except TimeoutError:
        raise _unknown(name, detail) from None


async def _ask(name: str, server: tuple[str, int]) -> Answer | None:
    number = secrets.randbelow(1 << 16)
    query = build_query(name, number)
    if query is None:
        raise _unknown(name, "this is no name of DNS")
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as asked:
        try:
            asked.connect(server)  # so that nobody else's answer is taken
            async with asyncio.timeout(DNS_PAUSE):
                await loop.sock_sendall(asked, query)
                while True:
                    if answer := parse_answer(await loop.sock_recv(asked, MAX_ANSWER), number):
                        return answer
        except (OSError, TimeoutError):  # there is no route yet, or nobody listens
            return None


def _unknown(name: str, detail: str) -> ProvisioningError:
    return ProvisioningError(Reason.HOSTNAME_UNKNOWN, name=name, detail=detail)
