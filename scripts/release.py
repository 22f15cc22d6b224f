"""Release a version: write it where it stands, check that all places agree, tag what was built. docs/releasing.md.

The version stands in ``minprov/__init__.py``. CHANGELOG.md and the Debian package have lists of versions of their own
that must agree with it; the RPM's is the Debian package's. Nothing else is written by hand.
"""

from __future__ import annotations

import argparse
import email.utils
import re
import subprocess
import sys
import time
from pathlib import Path

PACKAGE, CHANGELOG, DEBIAN = Path("minprov/__init__.py"), Path("CHANGELOG.md"), Path("debian/changelog")
README, DIST = Path("README.md"), Path("dist")
VERSION = r"\d+\.\d+\.\d+"
UNRELEASED = "## [Unreleased]\n"
DEBIAN_ENTRY = """\
minprov ({version}) bookworm; urgency=medium

  * CHANGELOG.md tells what is in it.

 -- minprov maintainers <maintainers@minprov.invalid>  {date}

"""
FORMS = (
    "minprov_{version}_all.deb",
    "minprov-{version}-1.noarch.rpm",
    "minprov-static-{version}-1.*.rpm",
    *(f"minprov-{{version}}-{form}-*.tar.gz" for form in ("bundle", "standalone", "static")),
)


def package_version() -> str:
    """Return the version that the program tells."""
    return re.findall(rf'__version__ = "({VERSION})"', PACKAGE.read_text(encoding="utf-8"))[0]


def debian_version() -> str:
    """Return the version that the Debian package gets."""
    return re.findall(rf"^minprov \(({VERSION})\)", DEBIAN.read_text(encoding="utf-8"))[0]


def notes() -> list[tuple[str, str]]:
    """Return name and text of each part of CHANGELOG.md, the newest first."""
    parts = re.split(r"^## ", CHANGELOG.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return [(part.split("]", 1)[0].strip("["), part.partition("\n")[2].strip()) for part in parts]


def next_version() -> str:
    """Return the version that is not released yet, or the one after it."""
    version = package_version()
    if version not in dict(notes()):
        return version
    major, minor, patch = version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def prepare(version: str) -> None:
    """Write a version, and today's date, to all places."""
    if not re.fullmatch(VERSION, version):
        sys.exit(f"{version} is no version such as 1.2.3")
    if version in dict(notes()):
        sys.exit(f"CHANGELOG.md has {version} already")
    if not dict(notes()).get("Unreleased"):
        sys.exit("CHANGELOG.md has nothing under [Unreleased]")
    now = time.time()
    today = time.strftime("%Y-%m-%d", time.gmtime(now))
    _replace(README, f"minprov {package_version()}, dry run", f"minprov {version}, dry run")
    _replace(PACKAGE, f'__version__ = "{package_version()}"', f'__version__ = "{version}"')
    _replace(CHANGELOG, UNRELEASED, f"{UNRELEASED}\n## [{version}] - {today}\n")
    if debian_version() != version:
        entry = DEBIAN_ENTRY.format(version=version, date=email.utils.formatdate(now))
        DEBIAN.write_text(entry + DEBIAN.read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "scripts.generate_docs"], check=True)


def check() -> str:
    """Return the version that all places agree on, and that has nothing unreleased before it."""
    (first, unreleased), (newest, _) = [*notes(), ("", "")][:2]
    versions = {str(PACKAGE): package_version(), str(DEBIAN): debian_version(), str(CHANGELOG): newest}
    if len(set(versions.values())) != 1:
        sys.exit("versions differ: " + ", ".join(f"{path} has {version}" for path, version in versions.items()))
    if first != "Unreleased" or unreleased:
        sys.exit("CHANGELOG.md must begin with [Unreleased], and have nothing under it")
    return newest


def check_dist(version: str) -> list[Path]:
    """Return what was built of a version: each form with its bill of materials, all with their sums."""
    built = []
    for pattern in FORMS:
        found = sorted(DIST.glob(pattern.format(version=version)))
        if not found:
            sys.exit(f"dist has no {pattern.format(version=version)}: make deb rpm rpm-static bundle standalone")
        built += found
    for path in built:
        name = re.sub(r"\.(deb|rpm|tar\.gz)$", "", path.name)
        if not (DIST / f"{name}.cdx.json").exists():
            sys.exit(f"dist has no bill of materials of {path.name}")
    sums = (DIST / "SHA256SUMS").read_text(encoding="utf-8")
    if missing := [path.name for path in built if path.name not in sums]:
        sys.exit(f"SHA256SUMS lacks {', '.join(missing)}")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=DIST, check=True)  # noqa: S607
    return built


def tag() -> None:
    """Tag the commit that dist was built from, with what CHANGELOG.md says as the message."""
    version = check()
    if changed := subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True, text=True).stdout:  # noqa: S607
        sys.exit(f"not committed:\n{changed}")
    built = check_dist(version)
    message = f"minprov {version}\n\n{dict(notes())[version]}\n"
    command = ["git", "tag", "--annotate", "--cleanup=verbatim", "--file=-", f"v{version}"]
    subprocess.run(command, input=message, text=True, check=True)
    sys.stdout.write(f"Tagged v{version}. To publish: git push origin v{version}, and from dist\n")
    sys.stdout.write("".join(f"  {path.name}\n" for path in [*built, Path("SHA256SUMS")]))


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        sys.exit(f"{path} must have once: {old}")
    path.write_text(text.replace(old, new), encoding="utf-8")


def main() -> None:
    """Do as told."""
    parser = argparse.ArgumentParser(prog="python -m scripts.release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    preparing = commands.add_parser("prepare", help="write the version to all places")
    preparing.add_argument("version", nargs="?", help="such as 1.2.3 (default: what is not released yet, or the next)")
    commands.add_parser("check", help="check that all places agree")
    commands.add_parser("tag", help="check, also what was built, and tag the commit")
    arguments = parser.parse_args()
    if arguments.command == "prepare":
        prepare(arguments.version or next_version())
    else:
        {"check": check, "tag": tag}[arguments.command]()


if __name__ == "__main__":
    main()
