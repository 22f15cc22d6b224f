"""The account stack of a service, as PAM puts it together; the scenarios have what comes of it."""

from __future__ import annotations

from pathlib import Path

from minprov.machine.system import System
from minprov.properties.pam import ACCESS, find_judge_of_passwords, hosts_named, read_stack


def test_files_are_read_in_their_place_and_lines_of_other_kinds_passed_over(tmp_path: Path) -> None:
    files = {
        "etc/pam.d/sshd": (
            "#%PAM-1.0\nauth required pam_deny.so\naccount required pam_nologin.so # closed\n@include common\n"
            "account substack password-auth\n-account [default=bad success=ok \\\n user_unknown=ignore] "
            "/lib/security/pam_sss.so quiet\naccount\naccount include nothing\naccount required pam_last.so\n"
        ),
        "etc/pam.d/common": "account [success=1 default=ignore] pam_unix.so\naccount requisite pam_deny.so\n",
        "usr/lib/pam.d/password-auth": "account required pam_access.so accessfile=/etc/access\n",
        "usr/lib/pam.d/common": "account required pam_time.so\n",
        "etc/pam.d/loop": "account include loop\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    stack = list(read_stack(System(str(tmp_path)), "sshd", "account"))
    assert [(line.module, line.file, line.number) for line in stack] == [
        ("pam_nologin", "/etc/pam.d/sshd", 3),
        ("pam_unix", "/etc/pam.d/common", 1),
        ("pam_deny", "/etc/pam.d/common", 2),
        ("pam_access", "/usr/lib/pam.d/password-auth", 1),
        ("pam_sss", "/etc/pam.d/sshd", 6),
        ("pam_last", "/etc/pam.d/sshd", 10),
    ]
    assert "success=1" in stack[1].control
    judge = find_judge_of_passwords(System(str(tmp_path)), "sshd")
    assert judge
    assert (judge.module, judge.number) == ("pam_deny", 2)
    assert list(read_stack(System(str(tmp_path)), "loop", "account")) == []


def test_an_address_in_each_network_of_pam_access_is_tried(tmp_path: Path) -> None:
    system = System(str(tmp_path))
    assert hosts_named(system) == []
    file = tmp_path / ACCESS.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(
        "# +:all:192.0.2.1\n+:(ops):10.20.30.0/24 198.51.100.7\n"
        "+ : root : 172.20.\n-:ALL:ALL EXCEPT 10 LOCAL h1.example\n"
    )
    assert hosts_named(system) == ["10.20.30.9", "198.51.100.7", "172.20.9.9", "10.9.9.9"]
