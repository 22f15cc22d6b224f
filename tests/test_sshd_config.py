"""Which line decides: what the reader finds is what the real sshd has in force."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.formats.sshd_config import Connection, Line, connections_of, find_line, matches, read_lines, split_line

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or ""
OUTSIDE = Connection("root", "203.0.113.9", "203.0.113.9", "10.0.0.4")
INSIDE = OUTSIDE._replace(host="10.1.2.3", addr="10.1.2.3")
GROUPS = {"root"}

CONFIGS = {
    "first": "PasswordAuthentication no\nPasswordAuthentication yes\n",
    "equals sign and case": "passwordAUTHENTICATION=no\n",
    "quotes": 'PasswordAuthentication "no"  # why\n',
    "address": "PasswordAuthentication no\nMatch Address 10.0.0.0/8\n PasswordAuthentication yes\n",
    "negated": "PasswordAuthentication no\nMatch Address !10.1.2.3,10.0.0.0/8,*.113.9\n PasswordAuthentication yes\n",
    "wildcard": "Match Address 10.*\n PasswordAuthentication no\n",
    "two blocks": "Match User r*\nPasswordAuthentication no\nMatch Address *\nPasswordAuthentication yes\n",
    "group": "Match Group wheel,root\nPasswordAuthentication no\n",
    "group and user": "Match Group root User nobody\nPasswordAuthentication no\n",
    "not the group": "Match Group *,!root\nPasswordAuthentication no\n",
    "port": "Match LocalPort 2222\nPasswordAuthentication no\nMatch LocalPort 22\nPasswordAuthentication yes\n",
    "own address": "Match LocalAddress 10.0.0.0/24\nPasswordAuthentication no\n",
    "host": "Match Host 203.*\nPasswordAuthentication no\n",
    "all": "Match all\nPasswordAuthentication no\n",
    "before a block": "Match Address 10.0.0.0/8\nMatch all\nPasswordAuthentication no\n",
    "included": "Include DIRECTORY/*.conf\nPasswordAuthentication yes\n",
    "included in a block": "Match Address 10.0.0.0/8\nInclude DIRECTORY/a.conf\n",
    "block that ends with its file": "Include DIRECTORY/match\nPasswordAuthentication no\n",
}


def read(directory: Path, text: str) -> list[Line]:
    config = directory / "config"
    config.write_text(text.replace("DIRECTORY", str(directory)))
    (directory / "a.conf").write_text("PasswordAuthentication no\n")
    (directory / "match").write_text("Match Address 192.0.2.1\nPasswordAuthentication yes\n")

    def files(pattern: str) -> list[tuple[str, str]]:
        names = sorted(str(path) for path in directory.iterdir())
        return [(name, Path(name).read_text()) for name in names if fnmatch.fnmatchcase(name, pattern)]

    return read_lines(files, str(config))


@pytest.mark.root
@pytest.mark.skipif(not SSHD, reason="needs sshd")
@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_line_that_decides_says_what_sshd_says(text: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    lines = read(tmp_path, text)
    for connection in (*connections_of(lines, OUTSIDE, GROUPS), INSIDE, INSIDE._replace(lport="2222")):
        command = [SSHD, "-T", "-f", f"{tmp_path}/config", "-h", str(key), "-C", str(connection)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower().splitlines()
        line = find_line(lines, "passwordauthentication", connection, GROUPS)
        assert f"passwordauthentication {line.arguments[0] if line else 'yes'}" in printed, connection


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", ["203.0.113.9"]),
        ("Match User nobody\nX11Forwarding no\n", ["203.0.113.9"]),
        ("Match User root\nX11Forwarding no\n", ["203.0.113.9"]),
        ("Match Address 10.0.0.0/8\nX11Forwarding no\n", ["203.0.113.9", "10.0.0.1"]),
        ("Match Address 203.0.113.0/24\nX11Forwarding no\n", ["198.51.100.9", "203.0.113.9"]),
        ("Match Address !127.0.0.1,!::1,*\nX11Forwarding no\n", ["127.0.0.1", "203.0.113.9"]),
        ("Match Address 192.168.*,fd00::/8\nX11Forwarding no\n", ["203.0.113.9", "192.168.1.1"]),
        ("Match Address 10.0.0.0/8\nX11Forwarding no\nMatch Address 10.1.*\nX11Forwarding yes\n", None),
    ],
)
def test_each_block_is_in_force_for_one_connection_and_not_for_another(
    text: str, addresses: list[str] | None, tmp_path: Path
) -> None:
    found = [connection.addr for connection in connections_of(read(tmp_path, text), OUTSIDE, GROUPS)]
    assert found == (addresses or ["203.0.113.9", "10.0.0.1", "10.1.1.1"])


def test_every_word_of_a_connection_can_be_what_a_block_is_about(tmp_path: Path) -> None:
    blocks = ("Match LocalPort 2222 RDomain 0", "Match LocalAddress 10.9.0.0/16 Host *.net")
    text = "".join(f"{block}\nX11Forwarding no\n" for block in blocks)
    found = connections_of(read(tmp_path, text), OUTSIDE, GROUPS)
    assert str(found[1]) == "user=root,host=203.0.113.9,addr=203.0.113.9,laddr=10.0.0.4,lport=2222,rdomain=0"
    assert str(found[2]) == "user=root,host=1.net,addr=203.0.113.9,laddr=10.9.0.1,lport=22,rdomain="


def test_line_knows_its_place_and_old_names(tmp_path: Path) -> None:
    lines = read(tmp_path, "# why\n\nInclude DIRECTORY/*.conf\nChallengeResponseAuthentication no\n")
    assert [(line.place, line.keyword) for line in lines] == [
        (f"{tmp_path}/a.conf:1", "passwordauthentication"),
        (f"{tmp_path}/config:4", "kbdinteractiveauthentication"),
    ]


def test_a_file_that_includes_itself_is_read_once() -> None:
    assert len(read_lines(lambda _: [("loop", "Include loop\nInclude loop\nUsePAM yes\n")])) == 1


@given(st.text(max_size=200))
def test_any_line_is_read(line: str) -> None:
    keyword, _ = split_line(line)
    assert keyword == keyword.lower()


@given(st.text("ab*?", max_size=30), st.text("ab", max_size=30))
def test_patterns_mean_what_the_shell_says(pattern: str, text: str) -> None:
    assert matches(text, pattern) == fnmatch.fnmatchcase(text, pattern)
