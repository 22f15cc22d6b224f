"""What is in a build and where it is from: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/.

python sbom.py PACKAGE ...    writes the document of each Debian package or RPM beside it
"""

from __future__ import annotations

import email.parser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

LICENSE_FILE = re.compile(r"(?i)(licen[sc]e|copying|notice)\b")


class Component(NamedTuple):
    """Something that is in a build; `license` is a choice of CycloneDX's, `license_text` what it comes with."""

    kind: str
    name: str
    version: str
    purl: str
    license: dict[str, Any]
    license_text: bytes


def component_of_distribution(metadata: Path) -> Component:
    """Return the component that an installed distribution's .dist-info directory tells of."""
    fields = email.parser.BytesHeaderParser().parsebytes((metadata / "METADATA").read_bytes())
    name, version, expression = fields["Name"], fields["Version"], fields["License-Expression"]
    texts = [
        path.read_bytes() for path in sorted(metadata.rglob("*")) if LICENSE_FILE.match(path.name) and path.is_file()
    ]
    return Component(
        kind="library",
        name=name,
        version=version,
        purl=f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
        license={"expression": expression} if expression else {"license": {"name": fields["License"]}},
        license_text=b"\n".join(texts),
    )


def component_of_package(file: Path) -> Component:
    """Return the component for the Debian package that a file of the building system is from."""
    # By the end of the path: on a merged-/usr system dpkg may know it without the /usr.
    package = _dpkg_query("--search", f"*{str(file).removeprefix('/usr')}").partition(": ")[0]
    name, version, architecture = _dpkg_query(
        "--showformat=${Package} ${Version} ${Architecture}", "--show", package
    ).split()
    copyright_file = Path("/usr/share/doc", name, "copyright")
    return Component(
        kind="library",
        name=name,
        version=version,
        purl=f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}",
        license={"license": {"name": f"see licenses/{name}"}},
        license_text=copyright_file.read_bytes(),
    )


def component_of_source(name: str, version: str, license_file: Path) -> Component:
    """Return the component for a library that is built from the upstream sources that Debian has."""
    return Component(
        kind="library",
        name=name,
        version=version,
        purl=f"pkg:generic/{name}@{version}",
        license={"license": {"name": f"see licenses/{name}"}},
        license_text=license_file.read_bytes(),
    )


def bill_of_materials(subject: Component, parts: list[Component]) -> dict[str, Any]:
    """Return the document for a build of `subject` that has `parts` in it."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _describe(subject)},
        "components": [_describe(part) for part in parts],
        "dependencies": [
            {"ref": subject.purl, "dependsOn": sorted(part.purl for part in parts)},
            *({"ref": part.purl} for part in parts),
        ],
    }


def bill_of_debian_package(package: Path) -> dict[str, Any]:
    """Return the document for a Debian package of ours."""
    fields = _run("dpkg-deb", "--field", package, "Package", "Version", "Architecture", "Depends", "Recommends")
    name, version, architecture, needed, wanted = (line.partition(": ")[2] for line in fields.splitlines())
    names = {"optional": re.split(r", | \| ", wanted), "required": needed.split(", ")}
    beside = [(re.split("[ :]", relation)[0], scope) for scope, relations in names.items() for relation in relations]
    return _bill_of_package("deb", name, version, architecture, beside, namespace="debian/")


def bill_of_rpm(package: Path) -> dict[str, Any]:
    """Return the document for an RPM of ours. Of "(a or b)" and "(a if b)" each is optional."""
    name, version, architecture = _run("rpm", "-qp", "--qf", "%{NAME} %{EVR} %{ARCH}", package).split()
    beside = []
    for tag, scope in (("RECOMMENDNAME", "optional"), ("REQUIRENAME", "required")):
        for relation in _run("rpm", "-qp", "--qf", f"[%{{{tag}}}\\n]", package).splitlines():
            if relation.startswith("("):
                beside += [(part, "optional") for part in re.split(" or | if ", relation.strip("()"))]
            elif not relation.startswith(("/", "rpmlib(")):
                beside.append((relation, scope))
    return _bill_of_package("rpm", name, version, architecture, beside)


def _bill_of_package(
    kind: str, name: str, version: str, architecture: str, beside: list[tuple[str, str]], namespace: str = ""
) -> dict[str, Any]:
    """Return the document for a package that has nothing in it but minprov, and what it needs beside it."""
    subject = Component(
        kind="application",
        name=name,
        version=version,
        purl=f"pkg:{kind}/{name}@{version}?arch={architecture}",
        license={"expression": "Apache-2.0"},
        license_text=b"",
    )
    bill = bill_of_materials(subject, [])
    for other, scope in sorted(set(beside), key=lambda pair: (pair[1], pair[0])):
        purl = f"pkg:{kind}/{namespace}{other}"
        bill["components"].append({"type": "library", "bom-ref": purl, "name": other, "purl": purl, "scope": scope})
        bill["dependencies"][0]["dependsOn"].append(purl)
    return bill


def _describe(component: Component) -> dict[str, Any]:
    return {
        "type": component.kind,
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
        "licenses": [component.license],
    }


def _dpkg_query(*arguments: str) -> str:
    return _run("/usr/bin/dpkg-query", *arguments).strip()


def _run(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    for package in map(Path, sys.argv[1:]):
        bill = bill_of_rpm(package) if package.suffix == ".rpm" else bill_of_debian_package(package)
        document = json.dumps(bill, indent=2)
        package.with_name(package.name.removesuffix(package.suffix) + ".cdx.json").write_text(document + "\n")
