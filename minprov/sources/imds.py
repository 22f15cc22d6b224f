"""IMDS, the instance metadata service: which requests to make, and which refusals pass.

Status codes: https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from minprov.errors import ProvisioningError, Reason
from minprov.imds import parse_instance
from minprov.limits import GONE_LIMIT, IMDS_LONGEST_WAIT
from minprov.network.retry import AttemptFailed, Endpoint, retry

if TYPE_CHECKING:
    from minprov.model import InstanceMetadata
    from minprov.network.transport import Transport

ENDPOINT = "http://169.254.169.254"
HEADERS = {"Metadata": "true"}
# extended=true marks a provisioning read: without it the service may answer 200 with part of the data (azure-init#134).
INSTANCE_PATH = "/metadata/instance?api-version=2021-08-01&extended=true"
# For a platform that answers 400 to that version (Azure Stack), as cloud-init does. It has no names of host and user.
FALLBACK_INSTANCE_PATH = "/metadata/instance?api-version=2019-06-01"
REFUSALS_BEFORE_FALLBACK = 3

# The documentation's "Errors and debugging"; 404 is not among them, since at first boot it also means "not yet", and
# nor is 400, which Microsoft advises to retry (azure-init#63).
FINAL_STATUSES = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED})
IMDS = Endpoint(
    name="IMDS",
    connection_failed=Reason.IMDS_CONNECTION,
    connect_timed_out=Reason.IMDS_CONNECT_TIMEOUT,
    read_timed_out=Reason.IMDS_READ_TIMEOUT,
    refused=Reason.IMDS_HTTP,
    final_statuses=FINAL_STATUSES,
    longest_wait=IMDS_LONGEST_WAIT,
)


async def fetch_instance(transport: Transport, base_url: str, *, deadline: float) -> InstanceMetadata:
    """Return what IMDS says of this VM.

    A 400 may mean that the service does not know the api-version, and it may be a stray one: so the older version has a
    turn after every three of them, and its answer, which lacks names, counts only if the newer one is refused again.
    Where the way there is prohibited, systemd has taken it, and is asked in its place.

    Raises:
        ProvisioningError: the last attempt's, when none succeeds before the deadline or one is refused for good.
    """
    refusals = 0
    gone_since: float | None = None

    async def request(path: str) -> InstanceMetadata:
        return parse_instance(await transport.attempt(IMDS, "GET", base_url + path, headers=HEADERS, deadline=deadline))

    async def ask() -> InstanceMetadata:
        nonlocal refusals, gone_since
        try:
            if refusals % (REFUSALS_BEFORE_FALLBACK + 1) != REFUSALS_BEFORE_FALLBACK:
                return await request(INSTANCE_PATH)
            older = await request(FALLBACK_INSTANCE_PATH)
            with suppress(AttemptFailed, ProvisioningError):
                return await request(INSTANCE_PATH)
            return older
        except AttemptFailed as refusal:
            if refusal.prohibited:
                from minprov.sources.systemd_imds import fetch_from_systemd  # hardly any machine has it

                try:
                    return await fetch_from_systemd(deadline=deadline)
                except ProvisioningError as error:
                    raise AttemptFailed(error, final=True) from refusal
            refusals += refusal.status == HTTPStatus.BAD_REQUEST
            if refusal.status == HTTPStatus.GONE:
                gone_since = gone_since or time.monotonic()
                refusal.final = time.monotonic() - gone_since > GONE_LIMIT
            raise
        except ProvisioningError as error:
            # Empty and truncated answers with status 200 have been seen to be followed by good ones.
            raise AttemptFailed(error) from error

    return await retry(ask, deadline=deadline)
