"""The Hyper-V pool: its format, its locks held by real processes, and what becomes of an old or damaged one."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.outcome.kvp import boot_time, put

# Takes a lock the way cloud-init and azure-init (flock) or hv_kvp_daemon (lockf) do, and lets go at a line on stdin.
HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as pool:
    getattr(fcntl, sys.argv[2])(pool, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.readline()
"""
# An agent that appends without asking what is there, as both agents do.
APPENDER = """
import fcntl, struct, sys
for number in range(50):
    with open(sys.argv[1], "ab") as pool:
        fcntl.flock(pool, fcntl.LOCK_EX)
        pool.write(struct.pack("512s2048s", f"other-{number}".encode(), b"value"))
"""


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / ".kvp_pool_1"
    path.touch()
    return path


def records(pool: Path) -> list[tuple[str, str]]:
    """Read the pool as the daemon does: struct kvp_record of hv_kvp_daemon.c, one after the other."""
    contents = pool.read_bytes()
    assert len(contents) % 2560 == 0
    return [
        (key.rstrip(b"\0").decode(), value.rstrip(b"\0").decode())
        for key, value in struct.iter_unpack("512s2048s", contents)
    ]


@contextmanager
def held(pool: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(pool), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "locked\n"
        yield holder
        holder.stdin.close()


def test_a_record_is_two_padded_fields(pool: Path) -> None:
    put(str(pool), "PROVISIONING_REPORT", "result=success")
    assert pool.read_bytes() == b"PROVISIONING_REPORT".ljust(512, b"\0") + b"result=success".ljust(2048, b"\0")


def test_records_of_others_are_kept_and_an_own_one_is_replaced_in_place(pool: Path) -> None:
    put(str(pool), "a", "1")
    put(str(pool), "PROVISIONING_REPORT", "result=error|reason=a long one")
    put(str(pool), "b", "2")
    put(str(pool), "PROVISIONING_REPORT", "result=success")
    assert records(pool) == [("a", "1"), ("PROVISIONING_REPORT", "result=success"), ("b", "2")]


def test_a_key_that_begins_as_another_is_another(pool: Path) -> None:
    put(str(pool), "PROVISIONING_REPORT_2", "2")
    put(str(pool), "PROVISIONING_REPORT", "1")
    assert len(records(pool)) == 2


@pytest.mark.parametrize("letter", ["x", "ä", "€", "😀"])  # of one to four bytes
def test_what_is_too_long_is_cut_to_safe_sizes_between_characters(pool: Path, letter: str) -> None:
    put(str(pool), letter * 300, letter * 1100)
    [(key, value)] = records(pool)
    assert key == letter * (254 // len(letter.encode()))
    assert value == letter * (1022 // len(letter.encode()))


def test_half_a_character_does_not_reach_the_host(pool: Path) -> None:
    put(str(pool), "key", "before \ud800 after")
    assert records(pool) == [("key", "before ? after")]


def test_without_a_pool_none_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        put(str(tmp_path / "pool"), "key", "value")
    assert list(tmp_path.iterdir()) == []


def test_a_pool_from_before_this_boot_is_emptied_once(pool: Path) -> None:
    put(str(pool), "old", "1")
    before_boot = boot_time() - 1
    os.utime(pool, (before_boot, before_boot))
    put(str(pool), "new", "2")
    put(str(pool), "newer", "3")
    assert records(pool) == [("new", "2"), ("newer", "3")]


def test_a_pool_of_the_second_of_the_boot_is_from_before_it(pool: Path) -> None:
    put(str(pool), "old", "1")
    os.utime(pool, (int(boot_time()), int(boot_time())))
    put(str(pool), "new", "2")
    assert records(pool) == [("new", "2")]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.sampled_from("abcd"))
def test_of_several_records_with_one_key_one_is_left(keys: list[str], key: str) -> None:
    with TemporaryDirectory() as directory:
        pool = Path(directory) / "pool"
        pool.write_bytes(
            b"".join(struct.pack("512s2048s", name.encode(), b"%d" % number) for number, name in enumerate(keys))
        )
        before = records(pool)
        put(str(pool), key, "new")
        after = records(pool)
    assert sorted(record for record in after if record[0] != key) == sorted(r for r in before if r[0] != key)
    assert [record for record in after if record[0] == key] == [(key, "new")]


def test_a_pool_written_since_boot_is_kept(pool: Path) -> None:
    put(str(pool), "of this boot", "1")
    since_boot = boot_time() + 1
    os.utime(pool, (since_boot, since_boot))
    put(str(pool), "new", "2")
    assert records(pool) == [("of this boot", "1"), ("new", "2")]


@pytest.mark.parametrize("torn", [1, 511, 513, 2559])
def test_a_record_torn_by_a_killed_writer_is_written_over(pool: Path, torn: int) -> None:
    put(str(pool), "whole", "1")
    with pool.open("ab") as file:
        file.write(b"t" * torn)
    put(str(pool), "new", "2")
    assert records(pool) == [("whole", "1"), ("new", "2")]


def test_a_full_pool_takes_no_further_key_but_a_new_value(pool: Path) -> None:
    pool.write_bytes(b"".join(struct.pack("512s2048s", str(number).encode(), b"old") for number in range(1024)))
    with pytest.raises(OSError, match="No space left"):
        put(str(pool), "one more", "value")
    put(str(pool), "1023", "new")
    assert len(records(pool)) == 1024
    assert records(pool)[1023] == ("1023", "new")


def test_no_torn_record_is_left_when_the_disk_is_full(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(str(pool), "first", "1")
    # A limit on the file's size cuts a write just as a full disk does, and needs no file system of its own.
    program = (
        "import resource, signal, sys; from minprov.outcome.kvp import put;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); put(sys.argv[1], 'second', '2')"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(pool)], capture_output=True, text=True, check=False)
    assert "No space left" in ended.stderr
    assert records(pool) == [("first", "1")]


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_pool_that_others_keep_locked_holds_nobody_up(pool: Path, kind: str) -> None:
    with held(pool, kind):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            put(str(pool), "key", "value", limit=0.1)
        assert time.monotonic() - start < 5
        assert records(pool) == []


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_lock_is_waited_for(pool: Path, kind: str) -> None:
    with held(pool, kind) as holder:

        def let_go(_: float) -> None:
            holder.communicate("\n")

        put(str(pool), "key", "value", pause=let_go)
    assert records(pool) == [("key", "value")]


def test_nothing_is_lost_between_writers(pool: Path) -> None:
    program = (
        "import sys; from minprov.outcome.kvp import put;"
        "[put(sys.argv[1], f'{sys.argv[2]}-{number}', 'v', limit=30) for number in range(50)]"
    )
    with (
        subprocess.Popen([sys.executable, "-c", APPENDER, str(pool)]) as agent,
        subprocess.Popen([sys.executable, "-c", program, str(pool), "a"]) as one,
        subprocess.Popen([sys.executable, "-c", program, str(pool), "b"]) as two,
    ):
        pass
    assert (agent.returncode, one.returncode, two.returncode) == (0, 0, 0)
    expected = {f"{name}-{number}" for name in ("other", "a", "b") for number in range(50)}
    assert {key for key, _ in records(pool)} == expected
    assert len(records(pool)) == 150


@pytest.mark.parametrize("make", ["fifo", "link", "directory"])
def test_only_a_regular_file_is_a_pool(tmp_path: Path, make: str) -> None:
    path = tmp_path / "pool"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "link":
        (tmp_path / "target").touch()
        path.symlink_to("target")
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"Invalid argument|Too many levels|Is a directory"):
        put(str(path), "key", "value")
    assert not (tmp_path / "target").exists() or (tmp_path / "target").read_bytes() == b""
