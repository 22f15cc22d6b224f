from __future__ import annotations

import base64
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.formats.ssh_keys import MAX_CHARACTERS, contains_all, merge_keys, normalise_keys

DATA = Path(__file__).parents[1] / "data/ssh"
PUBLIC = {path.stem: path.read_text().strip() for path in sorted(DATA.glob("*.pub"))}
FORMS = [path for path in sorted(DATA.iterdir()) if path.suffix in {".pub", ".rfc4716", ".pem", ".rsa", ".crt"}]
REFUSED = {
    "dsa.pub": "DSA",
    "dsa.pem": "DSA",
    "ec-compressed.pem": "compressed",
    "ec-explicit.pem": "ASN.1",
    "ed25519-cert.pub": "certificate",
    "ed448.pem": "algorithm",
    "rsa-512.pem": "512 bits",
    "rsa-pss.pem": "algorithm",
    "secp256k1.pem": "curve",
    "x25519.pem": "algorithm",
}
ED25519 = PUBLIC["ed25519"]
RSA = PUBLIC["rsa-3072"]
needs_ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen as the oracle")


def refusal(text: str, where: str | None = None) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as failure:
        normalise_keys(text, where)
    assert failure.value.reason is Reason.INVALID_SSH_KEY
    return failure.value


def key_of(line: str) -> str:
    """Return type and base64 of a line without options."""
    return " ".join(line.split()[:2])


def ssh_string(*strings: bytes) -> bytes:
    return b"".join(len(string).to_bytes(4, "big") + string for string in strings)


def line_of(*strings: bytes) -> str:
    return f"{strings[0].decode()} {base64.b64encode(ssh_string(*strings)).decode()}"


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


P256_POINT = blob_of(PUBLIC["ecdsa-256"])[-65:]
P521 = 2**521 - 1
P521_POINT = blob_of(PUBLIC["ecdsa-521"])[-133:]
# The same point, with a coordinate that is not reduced: 66 bytes have room for x + p.
P521_UNREDUCED = b"\4" + (int.from_bytes(P521_POINT[1:67], "big") + P521).to_bytes(66, "big") + P521_POINT[67:]
SECURITY_KEYS = [
    line_of(b"sk-ssh-ed25519@openssh.com", blob_of(ED25519)[-32:], b"ssh:"),
    line_of(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", P256_POINT, b"ssh:work"),
]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_form_of_a_key_becomes_the_line_openssh_writes(path: Path, line_end: str) -> None:
    text = path.read_text().replace("\n", line_end)
    (line,) = normalise_keys(f"{line_end}{text}{line_end}")
    assert key_of(line) == key_of(PUBLIC[path.name.partition(".")[0]])
    assert not set(line) & {"\r", "\n"}


def test_the_samples_cover_every_type_and_form() -> None:
    assert len(FORMS) == 6 + 6 + 6 + 2 + 7
    assert {line.split()[0] for line in PUBLIC.values()} == {
        "ssh-rsa",
        "ssh-ed25519",
        *(f"ecdsa-sha2-nistp{size}" for size in (256, 384, 521)),
    }
    assert {path.name for path in (DATA / "refused").iterdir()} == REFUSED.keys()


@pytest.mark.parametrize("line", SECURITY_KEYS)
def test_security_keys_are_accepted(line: str) -> None:
    assert normalise_keys(line) == (line,)


@needs_ssh_keygen
def test_ssh_keygen_accepts_every_line_made() -> None:
    lines = [*SECURITY_KEYS, *(line for path in FORMS for line in normalise_keys(path.read_text()))]
    assert accepted_by_ssh_keygen(lines) == lines


def accepted_by_ssh_keygen(lines: list[str]) -> list[str]:
    """Return the lines that ssh-keygen can read: it names each by its number, which stands in for the comment."""
    numbered = "".join(f"{key_of(line)} {number}\n" for number, line in enumerate(lines))
    listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=numbered, capture_output=True, text=True, check=False)
    return [lines[int(fingerprint.split()[2])] for fingerprint in listed.stdout.splitlines()]


@pytest.mark.parametrize("name", REFUSED)
def test_what_openssh_would_not_accept_is_refused_with_the_reason(name: str) -> None:
    assert REFUSED[name] in refusal((DATA / "refused" / name).read_text()).data["detail"]


@pytest.mark.parametrize("width", [1, 7, 64, 76])
def test_base64_wrapped_over_lines_is_joined(width: int) -> None:
    kind, encoded, comment = RSA.split(" ", 2)
    wrapped = "\r\n".join(encoded[i : i + width] for i in range(0, len(encoded), width))
    assert normalise_keys(f"{kind} {wrapped}\r\n") == (f"{kind} {encoded}",)
    assert normalise_keys(f"{kind} {wrapped} {comment}\r\n{ED25519}\r\n") == (RSA, ED25519)
    assert normalise_keys(f"{kind} {wrapped}\r\nrestrict {ED25519}\r\n") == (f"{kind} {encoded}", f"restrict {ED25519}")


def test_one_value_may_hold_many_keys_comments_and_blank_lines() -> None:
    pem = (DATA / "ecdsa-256.pem").read_text()
    text = f"\N{BYTE ORDER MARK}# mine\r\n{RSA}\r\n\r\n   \t\n{pem}\n  {ED25519}  \n#{RSA}\n"
    assert normalise_keys(text) == (RSA, key_of(PUBLIC["ecdsa-256"]), ED25519)


@pytest.mark.parametrize("text", ["", "\r\n", "# only a comment", " \t\n"])
def test_value_without_a_key_gives_none(text: str) -> None:
    assert normalise_keys(text) == ()


@pytest.mark.parametrize(
    "options",
    [
        "restrict",
        "cert-authority",
        'command="echo \\"a b\\" # c",no-pty',
        'from="10.0.0.0/8,*.example.com",restrict,pty',
        'environment="A=\\\\b",permitopen="[::1]:22"',
        'cert-authority,principals="ssh-rsa AAAA"',
    ],
)
def test_options_are_kept_as_given(options: str) -> None:
    assert normalise_keys(f"{options}\t {key_of(RSA)}\ta  comment") == (f"{options} {key_of(RSA)} a  comment",)


@pytest.mark.parametrize("options", ["frobnicate", 'No-Pty,frobnicate="1"', 'no-pty="x"', "command"])
def test_a_line_that_sshd_would_pass_over_is_refused(options: str) -> None:
    assert "sshd knows no option" in refusal(f"{options} {key_of(RSA)}").data["detail"]


def test_a_key_behind_a_blank_that_sshd_does_not_pass_over_is_not_there() -> None:
    assert not contains_all(f"\N{NO-BREAK SPACE}{key_of(RSA)}\n", [key_of(RSA)])
    assert contains_all(f" \t{key_of(RSA)}\r\n", [key_of(RSA)])


def test_comment_is_kept_in_one_printable_line() -> None:
    assert normalise_keys(f"{key_of(RSA)} \xe9t\xe9\x00\x1b[2J\ud800 x ") == (f"{key_of(RSA)} \xe9t\xe9  [2J  x",)


def test_rfc_4716_block_without_headers_has_no_comment() -> None:
    lines = (DATA / "ed25519.rfc4716").read_text().splitlines(keepends=True)
    assert normalise_keys("".join(line for line in lines if ":" not in line)) == (key_of(ED25519),)


def test_rfc_4716_comment_is_kept() -> None:
    text = (DATA / "ed25519.rfc4716").read_text()
    head, _, rest = text.partition("Comment:")
    rest = rest.partition("\n")[2]
    assert normalise_keys(f'{head}Subject: me\nx-a: \\\nssh\\\n-rsa\nCOMMENT: "my \\\nkey"\n{rest}') == (
        f"{key_of(ED25519)} my key",
    )


def test_refusal_says_where_and_on_which_line() -> None:
    error = refusal(f"{RSA}\r\n\r\nssh-rsa AAAA\r\n", "key 1 for /home/x\n/.ssh")
    assert error.data["where"] == r"key 1 for /home/x\n/.ssh"
    assert error.data["line"] == "3"


BODY = base64.b64encode(b"sesame" * 40).decode()


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"-----BEGIN {label}-----\n{BODY}\n-----END {label}-----\n"
            for label in ("PRIVATE KEY", "RSA PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
        ),
        f"-----BEGIN PRIVATE KEY-----{BODY}-----END PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{BODY}\n",
        f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n{BODY}\n---- END SSH2 ENCRYPTED PRIVATE KEY ----",
        f"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n{BODY}\n",
    ],
)
def test_private_key_is_refused_and_not_shown(text: str) -> None:
    error = refusal(text)
    assert "private key" in error.data["detail"]
    assert BODY[:8] not in f"{error}{error!r}{error.__cause__!r}"


def changed(line: str, *, at: int, byte: int) -> str:
    blob = bytearray(blob_of(line))
    blob[at] = byte
    return f"{line.split()[0]} {base64.b64encode(blob).decode()}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ssh-rsa", "not an OpenSSH"),
        ("AAAAB3NzaC1yc2E=", "not an OpenSSH"),
        ("hello ssh-rsa", "not an OpenSSH"),
        (f'command="x {RSA}', "not an OpenSSH"),
        (f"ssh-rsa {ED25519}", "not an OpenSSH"),
        (f"-{RSA}", "not an OpenSSH"),
        (RSA.replace("ssh-rsa", "SSH-RSA"), "not an OpenSSH"),
        (RSA.replace("ssh-rsa", "ssh-ed25519"), "but the key is ssh-rsa"),
        (ED25519.replace("ssh-ed25519", "ssh-foo"), "it says ssh-foo"),
        (f"ssh-rsa {RSA.split()[1][:-8]}", "cut short"),
        (f"ssh-rsa {RSA.split()[1][:-5]}", "base64"),
        (f"ssh-rsa {RSA.split()[1][:-2]}=A", "not an OpenSSH"),
        (line_of(b"sk-ssh-ed25519@openssh.com", b"x" * 32, b"ssh:\0"), "type sk-ssh-ed25519@openssh.com"),
        (line_of(b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", P256_POINT, b"\0"), "type sk-ecdsa"),
        ("ssh-rsa AAAA", "cut short"),
        ("ssh-rsa ====", "not an OpenSSH"),
        (line_of(b"ssh-foo", b"x"), "type ssh-foo"),
        (line_of(b"ssh-ed25519", b"x" * 31), "31 bytes"),
        (line_of(b"ssh-ed25519", b"x" * 32, b""), "type ssh-ed25519"),
        (line_of(b"ssh-ed25519"), "type ssh-ed25519"),
        (line_of(b"ssh-rsa", b"\1\0\1", b"\x7f" * 127), "1015 bits"),
        (line_of(b"ssh-rsa", b"\1\0\1", b"\x01" * 2049), "16385 bits"),
        (line_of(b"ssh-rsa", b"\1\0\1", b"\xff" * 128), "not positive"),
        (line_of(b"ssh-rsa", b"\xff", b"\x7f" * 129), "not positive"),
        (line_of(b"ssh-rsa", b"", b"\x7f" * 129), "not positive"),
        (line_of(b"ssh-rsa", b"\0", b"\x7f" * 129), "not positive"),
        (line_of(b"ecdsa-sha2-nistp256", b"nistp384", P256_POINT), "type ecdsa-sha2-nistp256"),
        (line_of(b"ecdsa-sha2-nistp256", b"nistp256", b"\2" + P256_POINT[1:33]), "compressed"),
        (line_of(b"ecdsa-sha2-nistp256", b"nistp256", P256_POINT[:-1]), "incomplete"),
        (line_of(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + b"\xff" * 64), "not on the curve"),
        (line_of(b"ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(64)), "not on the curve"),
        (line_of(b"ecdsa-sha2-nistp521", b"nistp521", P521_UNREDUCED), "not on the curve"),
        (f"{ED25519}\nAAAA", "not an OpenSSH"),
        (changed(PUBLIC["ecdsa-256"], at=-1, byte=0), "not on the curve"),
        (changed(PUBLIC["ecdsa-384"], at=-1, byte=0), "not on the curve"),
        (changed(PUBLIC["ecdsa-521"], at=-1, byte=0), "not on the curve"),
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----", "cut short"),
        ("-----BEGIN PUBLIC KEY-----\n\n-----END PUBLIC KEY-----", "ASN.1"),
        ("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----", "base64"),
        ("-----BEGIN PUBLIC KEY-----\nMCow", "no end"),
        ("-----BEGIN PGP PUBLIC KEY-----\nMCow\n-----END PGP PUBLIC KEY-----", "labelled PGP PUBLIC KEY"),
        ((DATA / "rsa-3072.crt").read_text() * 2, "several certificates"),
    ],
)  # fmt: skip
def test_damaged_key_is_refused_with_the_reason(text: str, problem: str) -> None:
    assert problem in refusal(text).data["detail"]


def test_key_at_each_limit_of_rsa_is_accepted() -> None:
    for modulus in (b"\0\x80" + b"\1" * 127, b"\0\x80" + b"\1" * 2047):
        line = line_of(b"ssh-rsa", b"\1\0\1", modulus)
        assert normalise_keys(line) == (line,)


def test_missing_keys_follow_what_is_there() -> None:
    existing = f"# mine\n{RSA}\n\nssh-rsa nonsense\n"
    assert merge_keys(existing, [RSA, ED25519]) == f"{existing}{ED25519}\n"


@pytest.mark.parametrize(
    ("existing", "merged"),
    [
        ("", f"{ED25519}\n"),
        ("\n", f"\n{ED25519}\n"),
        ("# no line end", f"# no line end\n{ED25519}\n"),
        (ED25519, ED25519),
        (f"{key_of(ED25519)} another comment\r\n", f"{key_of(ED25519)} another comment\r\n"),
        (f"  {ED25519}", f"  {ED25519}"),
        (f"#{ED25519}\n", f"#{ED25519}\n{ED25519}\n"),
        (f"restrict {ED25519}\n", f"restrict {ED25519}\n{ED25519}\n"),
        ("\udce9t\udce9 not UTF-8\n", f"\udce9t\udce9 not UTF-8\n{ED25519}\n"),
    ],
)
def test_merging_appends_one_whole_line_or_nothing(existing: str, merged: str) -> None:
    assert merge_keys(existing, [ED25519]) == merged
    assert merge_keys(merged, [ED25519, f"{key_of(ED25519)} again"]) == merged
    assert contains_all(merged, [ED25519])
    assert contains_all(existing, [ED25519]) is (existing == merged)


def test_the_same_key_wanted_twice_is_added_once() -> None:
    assert merge_keys("", [ED25519, RSA, f"{key_of(ED25519)} again"]) == f"{ED25519}\n{RSA}\n"
    assert merge_keys("", [ED25519, f"restrict {ED25519}"]) == f"{ED25519}\nrestrict {ED25519}\n"


def test_wanting_nothing_changes_nothing() -> None:
    assert merge_keys("x", []) == "x"
    assert contains_all("", [])


LINES = st.sampled_from([*PUBLIC.values(), *SECURITY_KEYS, f'command="a b" {RSA}', "# comment", "", "junk", "junk\r"])


@given(st.lists(LINES), st.lists(st.sampled_from([*PUBLIC.values(), *SECURITY_KEYS])), st.sampled_from(["", "\n"]))
def test_merging_keeps_every_line_and_converges(existing: list[str], wanted: list[str], end: str) -> None:
    text = "\n".join(existing) + end
    merged = merge_keys(text, wanted)
    assert merged.startswith(text)
    assert contains_all(merged, wanted)
    assert merge_keys(merged, wanted) == merged
    assert set(merged.split("\n")) <= {*existing, *wanted, ""}


@pytest.mark.parametrize(
    "text",
    [
        "\r\n" * 32_000,
        "A\n" * 32_000,
        "ssh-rsa A\n" + "A\n" * 32_000,
        "ssh-rsa " + "A" * 65_000,
        "a," * 32_000,
        "a-" * 32_000 + " x",
        'a="' + '\\"' * 32_000,
        'a="' + "\\" * 65_000,
        "-" * 65_000,
        "-----BEGIN " + "A " * 32_000,
        "-----BEGIN A-----\n" * 3_600,
        "---- BEGIN SSH2 PUBLIC KEY ----\n" + "a:\\\n" * 16_000 + "---- END SSH2 PUBLIC KEY ----",
        "ssh-rsa " + base64.b64encode(ssh_string(b"ssh-rsa", *[b""] * 12_000)).decode(),
        "ssh-rsa " + base64.b64encode(ssh_string(b"ssh-rsa", b"\1", b"\x7f" * 49_000)).decode(),
        "-----BEGIN PUBLIC KEY-----\n" + "MIAw" * 16_000 + "\n-----END PUBLIC KEY-----",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_a_value_of_the_largest_size_is_judged_quickly(text: str) -> None:
    assert 64_000 <= len(text) <= MAX_CHARACTERS
    start = time.process_time()
    try:
        merge_keys(text, normalise_keys(text))
    except ProvisioningError as error:
        assert error.reason is Reason.INVALID_SSH_KEY
    merge_keys(text, [ED25519])
    assert time.process_time() - start < 0.5


def test_a_larger_value_is_refused() -> None:
    largest = ED25519 + "\n" * (MAX_CHARACTERS - len(ED25519))
    assert normalise_keys(largest) == (ED25519,)
    assert str(MAX_CHARACTERS) in refusal(largest + "\n", "here").data["detail"]


SEEDS = [path.read_text() for path in FORMS] + SECURITY_KEYS


@st.composite
def mutated(draw: st.DrawFn) -> str:
    seed = draw(st.sampled_from(SEEDS))
    start, end = sorted(draw(st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)))))
    return seed[:start] + draw(st.text(max_size=5) | st.sampled_from(["\r\n", "-----", " ", "=", seed])) + seed[end:]


@given(st.text() | mutated())
def test_any_text_gives_lines_or_a_provisioning_error(text: str) -> None:
    try:
        lines = normalise_keys(text, "here")
    except ProvisioningError as error:
        assert error.reason is Reason.INVALID_SSH_KEY
        assert error.data["where"] == "here"
    else:
        for line in lines:
            assert line.isprintable()
            assert normalise_keys(line) == (line,)


@needs_ssh_keygen
def test_ssh_keygen_reads_what_is_accepted_and_only_that() -> None:
    lines = []
    for line in [*PUBLIC.values(), *SECURITY_KEYS]:
        kind, blob = line.split()[0], blob_of(line)
        for at in range(0, len(blob), 3):
            lines += [changed(line, at=at, byte=byte) for byte in (0, 1, 0x7F, 0x80, 0xFF, blob[at] ^ 1)]
        lines += [f"{kind} {base64.b64encode(blob[:n]).decode()}" for n in range(1, len(blob), 5)]
    accepted = []
    for line in lines:
        try:
            normalise_keys(line)
        except ProvisioningError:
            continue
        accepted.append(line)
    assert 500 < len(accepted) < len(lines) - 500
    assert accepted_by_ssh_keygen(lines) == accepted
