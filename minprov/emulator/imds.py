"""The metadata service at 169.254.169.254: request -> reply.

Rules and wording: MicrosoftDocs/azure-compute-docs, instance-metadata-service.md ("Security and authentication",
"Parameters", "Versioning", "Errors and debugging"). A reply is JSON, an error too. That page does not know
`reprovisiondata`, which is as cloud-init reads it (`sources/azure/imds.py`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

from .exchange import Reply
from .instance import build_instance
from .ovf_env import build_ovf_env

if TYPE_CHECKING:
    from .exchange import Request
    from .vm import VirtualMachine

_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_XML = "text/xml; charset=utf-8"
_SEE = "For more information refer to aka.ms/azureimds"


def endpoint(request: Request) -> str | None:
    """Return the name of the endpoint a request is for, `None` if there is none."""
    match request.path.rstrip("/").split("/"):
        case ["", "metadata", "instance", *_]:
            return "instance"
        case ["", "metadata", "versions"]:
            return "imds-versions"
        case ["", "metadata", "reprovisiondata"]:
            return "reprovisiondata"
    return None


def answer(vm: VirtualMachine, request: Request) -> Reply:
    """Judge a request and answer it as IMDS does."""
    names = [name.lower() for name, _ in request.query]
    if request.method != "GET":
        return _refuse(405, "Method not allowed", f"{request.method} is not supported")
    if "x-forwarded-for" in request.headers:
        return _refuse(400, f"Bad request. Request must not contain an X-Forwarded-For header. {_SEE}", "was forwarded")
    if request.headers.get("metadata", "").lower() != "true":
        return _refuse(400, "Bad request. Required metadata header not specified", "no `Metadata: true` header")
    if len(set(names)) != len(names):
        return _refuse(400, f"Bad request. Duplicate query parameters. {_SEE}", "a query parameter is given twice")
    match endpoint(request):
        case "imds-versions":
            return _json(200, {"apiVersions": list(vm.imds_api_versions)})
        case "instance":
            return _refuse_version(vm, request) or _answer_instance(vm, request)
        case "reprovisiondata":
            return _refuse_version(vm, request) or _answer_reprovision_data(vm)
    return _refuse(404, "Not found", "no such endpoint")


def _refuse_version(vm: VirtualMachine, request: Request) -> Reply | None:
    version = request.parameter("api-version")
    if version is not None and version in vm.imds_api_versions:
        return None
    error = f"Bad request. api-version is invalid or was not specified in the request. {_SEE}"
    newest = sorted(vm.imds_api_versions, reverse=True)[:3]
    reply = {"error": error, "newest-versions": newest}
    return _json(400, reply, refusal=f"api-version {version} is not supported")


def _answer_reprovision_data(vm: VirtualMachine) -> Reply:
    if not vm.reprovisioned:
        return _refuse(404, "Not found", "the VM has no owner yet, or is of no pool")
    return Reply(content_type=_XML, body=build_ovf_env(vm))


def _answer_instance(vm: VirtualMachine, request: Request) -> Reply:
    version = request.parameter("api-version") or ""
    extended = (request.parameter("extended") or "").lower() == "true"
    node: object = build_instance(vm, api_version=version, extended=extended)
    for key in request.path.rstrip("/").split("/")[3:]:
        child = _child(node, key)
        if child is None:
            return _refuse(404, "Not found", f"no element {key}")
        node = child

    wants_text = (request.parameter("format") or "json").lower() == "text"
    if isinstance(node, dict | list):
        return _text(_listing(node)) if wants_text else _json(200, node)
    if not wants_text:
        # A leaf is no JSON document: "format=text needs to be explicitly specified".
        return _refuse(400, f"Bad request. Format json is not supported for a leaf. {_SEE}", "a leaf needs format=text")
    return _text(str(node))


def _child(node: object, key: str) -> object | None:
    match node:
        case dict():
            table = cast("dict[str, object]", node)
            return next((value for name, value in table.items() if name.lower() == key.lower()), None)
        case list() if key.isdecimal() and int(key) < len(node):
            return cast("list[object]", node)[int(key)]
    return None


def _listing(node: dict[str, object] | list[object]) -> str:
    """Return the names of the children, one on a line, those with children of their own marked by a slash."""
    items = node.items() if isinstance(node, dict) else ((str(index), value) for index, value in enumerate(node))
    return "\n".join(f"{name}/" if isinstance(value, dict | list) else name for name, value in items)


def _json(status: int, document: object, *, refusal: str | None = None) -> Reply:
    return Reply(status=status, content_type=_JSON, body=json.dumps(document).encode(), refusal=refusal)


def _text(text: str) -> Reply:
    return Reply(content_type=_TEXT, body=text.encode())


def _refuse(status: int, error: str, why: str) -> Reply:
    return _json(status, {"error": error}, refusal=why)
