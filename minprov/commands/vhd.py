"""``minprov vhd``: make the fixed VHD that Azure takes, and print how it is uploaded."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from minprov.commands.output import print_text
from minprov.commands.parser import Parser
from minprov.commands.stopping import clear_up_when_stopped
from minprov.image.vhd import Plan, make_vhd, plan_vhd

SCHEMA = "minprov/vhd/1"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PROVIDER = "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP/providers/Microsoft.Compute"


def run(argv: list[str]) -> int:
    """Make it and return the exit status.

    Raises:
        ProvisioningError: USAGE, IMAGE_INVALID, IMAGE_IN_USE, IMAGE_UNREADABLE, OUTPUT_FAILED.

    """
    flags = vars(build_parser().parse_args(argv))
    image, out, size, dry_run = flags["image"], flags["out"], flags.get("size"), flags.get("dry_run", False)
    clear_up_when_stopped()
    plan = plan_vhd(image, size) if dry_run else make_vhd(image, out, size)
    document = to_document(plan, out, dry_run=dry_run, flags=flags)
    print_text([json.dumps(document, indent=2) if flags.get("json") else render(document)])
    return os.EX_OK


def build_parser() -> Parser:
    """Return the command's parser."""
    parser = Parser(
        prog="minprov vhd",
        description="Make a fixed VHD that Azure takes from a disk image, read it back, and print how it is uploaded. "
        "The image is not changed and nothing is overwritten.",
    )
    parser.add_argument("image", metavar="IMAGE", help="disk image or disk: raw, qcow2, VHD, VHDX or VMDK")
    parser.add_argument("out", metavar="OUT", help="the VHD, a new file")
    parser.add_argument(
        "--size", metavar="SIZE", type=_size, help="let the disk grow, as 30G (default: to the next whole MiB)"
    )
    parser.add_argument(
        "--nvme", action="store_true", help="say in the commands that remote NVMe works, as `check --nvme` tells"
    )
    parser.add_argument(
        "--trusted-launch",
        action="store_true",
        help="say in the commands that Secure Boot works, as `check --trusted-launch` tells",
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be made; write nothing (default: no)")
    parser.add_argument("--json", action="store_true", help="print one JSON document (default: text)")
    return parser


def to_document(plan: Plan, out: str, *, dry_run: bool, flags: dict[str, Any]) -> dict[str, Any]:
    """Return what was made, or would be, as a document."""
    layout = plan.layout
    return {
        "schema": SCHEMA,
        "outcome": "planned" if dry_run else "made",
        "image": {"path": plan.image, "format": plan.format.value, "size": plan.image_size},
        "vhd": {"path": out, "size": plan.size, "file_size": plan.file_size},
        "gpt_backup_moved": plan.moves_backup,
        "generations": None if layout is None else list(layout.generations),
        "architecture": layout.architecture if layout else None,
        "notes": [*plan.notes, *(layout.notes if layout else ())],
        "commands": [
            shlex.join(command)
            for command in commands(
                plan, out, nvme=flags.get("nvme", False), trusted_launch=flags.get("trusted_launch", False)
            )
        ],
    }


def commands(plan: Plan, out: str, *, nvme: bool, trusted_launch: bool) -> list[list[str]]:
    """Return the commands that make an image of the VHD; what is in capitals is the reader's to fill in."""
    name = os.path.basename(out).removesuffix(".vhd")
    layout = plan.layout
    generation = (layout.generations if layout else ("V2",))[:1] or ("V2",)
    kind = ["--hyper-v-generation", *generation]
    if layout and layout.architecture:
        kind += ["--architecture", layout.architecture]
    # Secure Boot is generation 2's alone; `az` takes a definition of that for fit for it, unless it is told otherwise.
    features = ["IsAcceleratedNetworkSupported=true", f"DiskControllerTypes={'SCSI,NVMe' if nvme else 'SCSI'}"]
    if generation == ("V2",):
        features.insert(0, f"SecurityType={'TrustedLaunchSupported' if trusted_launch else 'Standard'}")
    group = ["--resource-group", "GROUP"]
    gallery = [*group, "--gallery-name", "GALLERY", "--gallery-image-definition", name]
    return [
        [
            *("az", "disk", "create", *group, "--name", name, "--location", "LOCATION", "--os-type", "Linux"),
            *("--sku", "Standard_LRS", "--for-upload", "--upload-size-bytes", str(plan.file_size), *kind),
        ],
        [
            *("az", "disk", "grant-access", *group, "--name", name),
            *("--access-level", "Write", "--duration-in-seconds", "86400"),
        ],
        ["azcopy", "copy", out, "SAS", "--blob-type", "PageBlob"],
        ["az", "disk", "revoke-access", *group, "--name", name],
        [
            *("az", "sig", "image-definition", "create", *gallery, "--publisher", "PUBLISHER", "--offer", "OFFER"),
            *("--sku", name, "--os-type", "Linux", "--os-state", "Generalized", *kind),
            *("--features", " ".join(features)),
        ],
        [
            *("az", "sig", "image-version", "create", *gallery, "--gallery-image-version", "1.0.0"),
            *(
                "--os-snapshot",
                f"{_PROVIDER}/disks/{name}",
            ),
        ],
        [
            *("az", "vm", "create", *group, "--name", "NAME", "--image"),
            f"{_PROVIDER}/galleries/GALLERY/images/{name}/versions/1.0.0",
            *("--enable-agent", "false", "--generate-ssh-keys"),
        ],
    ]


def render(document: dict[str, Any]) -> str:
    """Return a document as text for people."""
    image, vhd = document["image"], document["vhd"]
    planned = document["outcome"] == "planned"
    lines = [
        f"{image['path']}: {image['format']}, a disk of {image['size']} bytes",
        f"{vhd['path']}: {'would be ' if planned else ''}a fixed VHD of {vhd['size']} bytes ({vhd['size'] >> 20} MiB)"
        f" and its footer{'' if planned else ', read back'}",
    ]
    if vhd["size"] > image["size"]:
        lines.append(
            f"  {vhd['size'] - image['size']} bytes of zeros were added"
            if not planned
            else f"  {vhd['size'] - image['size']} bytes of zeros to add"
        )
    if document["gpt_backup_moved"]:
        lines.append("  the GPT's backup header " + ("moves" if planned else "moved") + " to the end of the disk")
    if document["generations"] is None:
        lines.append("  which generation can start it is told once it is converted")
    elif document["generations"]:
        names = " and ".join(f"generation {generation[1]}" for generation in document["generations"])
        architecture = f" ({document['architecture']})" if document["architecture"] else ""
        lines.append(f"  {names} can start it{architecture}")
    lines += [f"  note: {note}" for note in document["notes"]]
    return "\n".join(
        [*lines, "", "Upload it and make an image of it; fill in what is in capitals:", *document["commands"]]
    )


def _size(text: str) -> int:
    unit = text[-1:].upper()
    value = int(text[:-1]) * _UNITS[unit] if unit in _UNITS else int(text)
    if value <= 0:
        raise ValueError(text)
    return value
