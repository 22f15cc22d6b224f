from __future__ import annotations

import base64
import re
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minprov.errors import ProvisioningError, Reason
from minprov.formats.xml_document import MAX_BYTES, MAX_MARKUP
from minprov.model import SshPublicKey
from minprov.ovf import parse_ovf_env, redact
from tests.cost import cost
from tests.mutations import mutations

FULL = (Path(__file__).parent / "data/ovf/full.xml").read_bytes()
WA = "http://schemas.microsoft.com/windowsazure"
HOST = "<HostName>vm</HostName>"
MIB = 1024 * 1024


def ovf_env(linux: str = HOST, platform: str = "", *, head: str = "", namespace: str = WA) -> bytes:
    """Build an ovf-env around the two sets of properties, in the shape the platform gives it."""
    return f"""{head}<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="{namespace}">
  <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="{namespace}">{linux}</LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection><wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="{namespace}">{platform}</PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>""".encode()


def refusal(data: bytes) -> ProvisioningError:
    """Return why the document, or the one value in it that is wrong, cannot be used."""
    try:
        [fault] = parse_ovf_env(data).faults.values()
    except ProvisioningError as error:
        return error
    return fault


def password_of(content: str) -> str | None:
    secret = parse_ovf_env(ovf_env(f"{HOST}<UserPassword>{content}</UserPassword>")).password
    return secret.reveal() if secret else None


def test_every_property_of_a_full_document_is_read() -> None:
    env = parse_ovf_env(FULL)
    assert env.hostname == "Web-01"
    assert env.username == "azureuser"
    assert env.password is not None
    assert env.password.reveal() == "Corr&ct horse"
    assert env.custom_data == b"#cloud-config\npackages: []\n\x00\xff"
    assert env.disable_ssh_password_authentication is False
    assert [key.path for key in env.ssh_public_keys] == [
        "$HOME/.ssh/authorized_keys",
        "/home/azureuser/.ssh/authorized_keys",
    ]
    assert env.ssh_public_keys[0].value is not None
    assert env.ssh_public_keys[0].value.endswith(" first")
    assert env.ssh_public_keys[1].value is None
    assert env.ssh_public_keys[1].fingerprint == "0123456789ABCDEF0123456789ABCDEF01234567"
    assert env.preprovisioned_vm is True
    assert env.preprovisioned_vm_type == "Savable"
    assert env.provision_guest_proxy_agent is True


def test_absent_properties_are_none_or_false() -> None:
    env = parse_ovf_env(ovf_env())
    assert env.hostname == "vm"
    assert (env.username, env.password, env.custom_data, env.disable_ssh_password_authentication) == (None,) * 4
    assert env.ssh_public_keys == ()
    assert (env.preprovisioned_vm, env.preprovisioned_vm_type, env.provision_guest_proxy_agent) == (False, None, False)


def test_empty_elements_mean_the_same_as_absent_ones() -> None:
    linux = "<UserName/><UserPassword></UserPassword><CustomData/><DisableSshPasswordAuthentication/><SSH/>"
    platform = "<PreprovisionedVm/><PreprovisionedVMType> </PreprovisionedVMType><ProvisionGuestProxyAgent/>"
    assert parse_ovf_env(ovf_env(HOST + linux, platform)) == parse_ovf_env(ovf_env())


def test_platform_settings_section_may_be_missing() -> None:
    data = re.sub(rb"<wa:PlatformSettingsSection>.*</wa:PlatformSettingsSection>", b"", ovf_env(), flags=re.DOTALL)
    assert parse_ovf_env(data) == parse_ovf_env(ovf_env())


def test_elements_are_matched_by_namespace_whatever_the_prefix() -> None:
    renamed = FULL.replace(b"wa:", b"azure:").replace(b":wa=", b":azure=")
    assert renamed != FULL
    # A Secret equals nothing but itself.
    assert {**parts(renamed), "password": None} == {**parts(FULL), "password": None}


def parts(data: bytes) -> dict[str, object]:
    env = parse_ovf_env(data)
    return env._asdict()


@pytest.mark.parametrize(
    "head", ["\N{BYTE ORDER MARK}", "\N{BYTE ORDER MARK}<?xml version='1.0' encoding='utf-8'?>\r\n"]
)
def test_byte_order_mark_and_crlf_are_accepted(head: str) -> None:
    data = ovf_env(head=head).replace(b"\n", b"\r\n")
    assert parse_ovf_env(data) == parse_ovf_env(ovf_env())


@pytest.mark.parametrize(
    "codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp037", "utf-7", "unknown-8bit"]
)
def test_document_is_utf_8_whatever_it_declares(codec: str) -> None:
    declared = ovf_env(f"{HOST}<UserPassword>é</UserPassword>", head=f'<?xml version="1.0" encoding="{codec}"?>')
    secret = parse_ovf_env(declared).password
    assert secret is not None
    assert secret.reveal() == "é"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp037"])
def test_document_in_another_encoding_is_refused(codec: str) -> None:
    text = f'<?xml version="1.0" encoding="{codec}"?>' + ovf_env(f"{HOST}<UserPassword>é</UserPassword>").decode()
    assert refusal(text.encode(codec)).reason is Reason.OVF_PARSE


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("TRUE", True), ("1", True), ("false", False), ("0", False), (" true\r\n", True)],
)
def test_booleans_are_those_of_xml_schema_in_any_case(text: str, value: bool) -> None:
    element = "DisableSshPasswordAuthentication"
    env = parse_ovf_env(ovf_env(f"{HOST}<{element}>{text}</{element}>"))
    assert env.disable_ssh_password_authentication is value


@pytest.mark.parametrize("element", ["PreprovisionedVMType", "PreprovisionedVmType"])
def test_pool_type_is_read_in_either_spelling(element: str) -> None:
    platform = f"<{element}>Running</{element}>"
    assert parse_ovf_env(ovf_env(platform=platform)).preprovisioned_vm_type == "Running"


def test_pool_type_none_is_an_ordinary_vm() -> None:
    platform = "<PreprovisionedVMType>None</PreprovisionedVMType>"
    assert parse_ovf_env(ovf_env(platform=platform)).preprovisioned_vm_type is None


@pytest.mark.parametrize("element", ["UserPassword", "AdminPassword", "adminPassword"])
def test_password_is_read_under_each_of_its_names(element: str) -> None:
    secret = parse_ovf_env(ovf_env(f"{HOST}<{element}>hunter2!</{element}>")).password
    assert secret is not None
    assert secret.reveal() == "hunter2!"


@pytest.mark.parametrize(
    ("content", "password"),
    [
        ("pa ss ", "pa ss "),
        (" \t x", " \t x"),
        ("a&lt;b&amp;&#x63;", "a<b&c"),
        ("<![CDATA[<&>]]>x", "<&>x"),
        ("se<!-- no -->cret", "secret"),
        ("*a*", "*a*"),
        ("pässwörd\N{PILE OF POO}", "pässwörd\N{PILE OF POO}"),
        ("x" * 511, "x" * 511),
    ],
)
def test_password_is_taken_exactly(content: str, password: str) -> None:
    assert password_of(content) == password


@pytest.mark.parametrize("content", ["", "REDACTED", "*", "********", "\n    "])
def test_redacted_or_blank_password_means_none(content: str) -> None:
    assert password_of(content) is None


@pytest.mark.parametrize(
    "password", ["hunter2\n", "hunter2&#13;", "hunter2&#10;x", "hunter2" + "x" * 505, "hunter2" + "é" * 253]
)
def test_unusable_password_is_refused_without_being_shown(password: str) -> None:
    error = refusal(ovf_env(f"{HOST}<UserPassword>{password}</UserPassword>"))
    assert error.reason is Reason.INVALID_PASSWORD
    assert "hunter2" not in repr(error) + str(error)


def test_custom_data_of_the_largest_size_is_kept_byte_for_byte() -> None:
    custom_data = bytes(range(256)) * 256
    encoded = base64.encodebytes(custom_data).decode().replace("\n", "\r\n  ")
    assert parse_ovf_env(ovf_env(f"{HOST}<CustomData>\r\n{encoded}</CustomData>")).custom_data == custom_data


@given(st.binary(min_size=1), st.sampled_from(["", "\n", " \t\r\n"]), st.integers(1, 80))
def test_custom_data_survives_any_wrapping(custom_data: bytes, separator: str, width: int) -> None:
    encoded = base64.b64encode(custom_data).decode()
    wrapped = separator.join(encoded[i : i + width] for i in range(0, len(encoded), width))
    assert parse_ovf_env(ovf_env(f"{HOST}<CustomData>{wrapped}</CustomData>")).custom_data == custom_data


@pytest.mark.parametrize("encoded", ["QQ", "QQ=", "Q===", "QQ==QQ==", "QQ==x", "Q-_=", "é", "QUJD*", "=QUJ"])
def test_custom_data_that_is_not_base64_is_refused(encoded: str) -> None:
    error = refusal(ovf_env(f"{HOST}<CustomData>{encoded}</CustomData>"))
    assert error.reason is Reason.OVF_INVALID
    assert error.data["element"] == "CustomData"


def test_public_keys_keep_their_order() -> None:
    keys = "".join(f"<PublicKey><Value>ssh-rsa {n}</Value></PublicKey>" for n in "cab")
    env = parse_ovf_env(ovf_env(f"{HOST}<SSH><PublicKeys>{keys}</PublicKeys></SSH>"))
    assert env.ssh_public_keys == tuple(SshPublicKey(value=f"ssh-rsa {n}") for n in "cab")


def test_public_key_that_names_nothing_is_passed_over_and_named() -> None:
    keys = "<PublicKey><Value>a</Value></PublicKey><PublicKey><Path>/home/é</Path><Value> </Value></PublicKey>"
    env = parse_ovf_env(ovf_env(f"{HOST}<SSH><PublicKeys>{keys}</PublicKeys></SSH>"))
    assert env.ssh_public_keys == (SshPublicKey(value="a"),)
    assert env.passed_over == (r"key 1 for /home/\xe9 of the media is empty",)


def test_a_value_that_cannot_be_used_is_a_fault_of_its_property_alone() -> None:
    key = "<PublicKey><Value>a</Value></PublicKey>"
    odd = "<PublicKey><Value>a</Value><Value>b</Value></PublicKey>"
    env = parse_ovf_env(
        ovf_env(
            f"<HostName>web_01</HostName><UserName>{'a' * 40}</UserName><UserPassword>a\nb</UserPassword>"
            "<CustomData>***</CustomData><DisableSshPasswordAuthentication>perhaps</DisableSshPasswordAuthentication>"
            f"<SSH><PublicKeys>{odd}{key}</PublicKeys></SSH>"
        )
    )
    assert {name: fault.reason for name, fault in env.faults.items()} == {
        "hostname": Reason.INVALID_HOSTNAME,
        "username": Reason.INVALID_USERNAME,
        "password": Reason.INVALID_PASSWORD,
        "custom_data": Reason.OVF_INVALID,
        "disable_ssh_password_authentication": Reason.OVF_INVALID,
        "ssh_public_keys": Reason.OVF_INVALID,
    }
    assert (env.hostname, env.username, env.password, env.custom_data) == (None,) * 4
    assert env.ssh_public_keys == (SshPublicKey(value="a"),)


def test_a_host_name_that_is_missing_or_empty_is_for_imds_to_tell() -> None:
    for linux in ("", "<HostName/>", "<HostName xmlns='urn:other'>vm</HostName>"):
        env = parse_ovf_env(ovf_env(linux))
        assert (env.hostname, env.faults) == (None, {})


@pytest.mark.parametrize(
    ("linux", "platform", "element"),
    [
        (HOST + HOST, "", "HostName"),
        ("<HostName>v<b/>m</HostName>", "", "HostName"),
        (HOST + "<UserName>a</UserName><UserName>a</UserName>", "", "UserName"),
        (HOST + "<UserPassword/><UserPassword/>", "", "UserPassword"),
        (HOST + "<UserPassword>a</UserPassword><AdminPassword>a</AdminPassword>", "", "AdminPassword"),
        (HOST + "<UserPassword>a<b/></UserPassword>", "", "UserPassword"),
        (HOST + "<CustomData/><CustomData/>", "", "CustomData"),
        (HOST + "<SSH/><SSH/>", "", "SSH"),
        (HOST + "<SSH><PublicKeys/><PublicKeys/></SSH>", "", "PublicKeys"),
        (HOST + "<SSH><PublicKeys><PublicKey><Value/><Value/></PublicKey></PublicKeys></SSH>", "", "Value"),
        (HOST + "<DisableSshPasswordAuthentication>yes</DisableSshPasswordAuthentication>", "",
         "DisableSshPasswordAuthentication"),
        (HOST, "<PreprovisionedVm>maybe</PreprovisionedVm>", "PreprovisionedVm"),
        (HOST, "<PreprovisionedVm/><PreprovisionedVm/>", "PreprovisionedVm"),
        (HOST, "<PreprovisionedVMType/><PreprovisionedVmType/>", "PreprovisionedVmType"),
        (HOST, "<ProvisionGuestProxyAgent>2</ProvisionGuestProxyAgent>", "ProvisionGuestProxyAgent"),
    ],
)  # fmt: skip
def test_repeated_or_senseless_element_is_named(linux: str, platform: str, element: str) -> None:
    error = refusal(ovf_env(linux, platform))
    assert error.reason is Reason.OVF_INVALID
    assert error.data["element"] == element


@pytest.mark.parametrize(
    "section",
    ["ProvisioningSection", "LinuxProvisioningConfigurationSet", "PlatformSettingsSection", "PlatformSettings"],
)
def test_repeated_section_is_named(section: str) -> None:
    twice = re.sub(rf"(<((wa:)?{section})\b.*</\2>)".encode(), rb"\1\1", ovf_env(), flags=re.DOTALL)
    error = refusal(twice)
    assert (error.reason, error.data["element"]) == (Reason.OVF_INVALID, section)


def test_missing_configuration_set_is_named() -> None:
    error = refusal(ovf_env().replace(b"LinuxProv", b"WindowsProv"))
    assert (error.reason, error.data["element"]) == (Reason.OVF_INVALID, "LinuxProvisioningConfigurationSet")


@pytest.mark.parametrize(
    ("linux", "reason"),
    [
        ("<HostName>a_b</HostName>", Reason.INVALID_HOSTNAME),
        (HOST + "<UserName>-rf</UserName>", Reason.INVALID_USERNAME),
    ],
)
def test_name_that_cannot_be_used_has_its_own_reason(linux: str, reason: Reason) -> None:
    assert refusal(ovf_env(linux)).reason is reason


@pytest.mark.parametrize(
    "namespace", ["", "http://schemas.microsoft.com/WindowsAzure", "http://www.vmware.com/schema/ovfenv"]
)
def test_document_of_another_platform_is_foreign(namespace: str) -> None:
    data = ovf_env(namespace=namespace or "urn:x").replace(b"urn:x", namespace.encode() or b"urn:x")
    assert refusal(data).reason is Reason.OVF_FOREIGN


BOMB = (
    '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {x} "{f"&{y};" * 10}">' for x, y in zip("bcdefgh", "abcdefg", strict=True))
    + "]>"
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf",
        b"{}",
        b"<Environment>",
        ovf_env()[:-1],
        ovf_env() + b"<x/>",
        ovf_env().replace(b"vm", b"v\0m"),
        ovf_env().replace(b"vm", b"&nbsp;"),
        ovf_env().replace(b"vm", b"\xff"),
        ovf_env().replace(b"vm", b"&#0;"),
        ovf_env().replace(b"vm", b"\x07"),
        ovf_env(head='<!DOCTYPE Environment SYSTEM "file:///etc/passwd">'),
        ovf_env(head='<!DOCTYPE E [<!ENTITY x SYSTEM "file:///etc/passwd">]>').replace(b">vm<", b">&x;<"),
        ovf_env(head=BOMB).replace(b">vm<", b">&h;<"),
        ovf_env() + b" " * MAX_BYTES,
    ],
)
def test_what_is_no_acceptable_xml_is_refused(data: bytes) -> None:
    assert refusal(data).reason is Reason.OVF_PARSE
    with pytest.raises(ProvisioningError) as failure:
        redact(data)
    assert failure.value.reason is Reason.OVF_PARSE


def test_document_at_the_bounds_is_read_and_beyond_them_refused() -> None:
    largest = ovf_env() + b" " * (MAX_BYTES - len(ovf_env()))
    assert parse_ovf_env(largest).hostname == "vm"
    assert "larger" in refusal(largest + b" ").data["detail"]
    marks = ovf_env().count(b"<") + ovf_env().count(b"=")
    busiest = ovf_env(HOST + "<x/>" * (MAX_MARKUP - marks))
    assert parse_ovf_env(busiest).hostname == "vm"
    assert "larger" in refusal(busiest.replace(b"<x/>", b"<x a=''/>", 1)).data["detail"]
    longest = "x" * 128
    assert parse_ovf_env(ovf_env(f"{HOST}<x xmlns='{longest}'/>")).hostname == "vm"
    for quote in "'\"":
        assert "larger" in refusal(ovf_env(f"{HOST}<x xmlns:p={quote}{longest}x{quote}/>")).data["detail"]


def test_azures_largest_document_is_within_the_bounds() -> None:
    custom_data = base64.b64encode(bytes(65535)).decode()
    key = f"<PublicKey><Path>/home/x/.ssh/authorized_keys</Path><Value>ssh-rsa {'A' * 2900}</Value></PublicKey>"
    linux = f"{HOST}<CustomData>{custom_data}</CustomData><SSH><PublicKeys>{key * 100}</PublicKeys></SSH>"
    assert len(parse_ovf_env(ovf_env(linux)).ssh_public_keys) == 100


LONG = b"x" * (MAX_BYTES // 2)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"<a>" * (MAX_BYTES // 3), id="deep"),
        pytest.param(b"<r>" + b"<a/>" * (MAX_BYTES // 4 - 10) + b"</r>", id="wide"),
        pytest.param(b"<a>" * (MAX_MARKUP // 2) + b"</a>" * (MAX_MARKUP // 2), id="deep within bounds"),
        pytest.param(b"<r " + b" ".join(b"a%d=''" % i for i in range(MAX_BYTES // 11)) + b"/>", id="attributes"),
        pytest.param(
            b"<r xmlns='" + LONG + b"'>" + b"".join(b"<a%d/>" % i for i in range(9000)) + b"</r>", id="namespace"
        ),
        pytest.param(
            b"<r xmlns:p='" + LONG + b"' " + b" ".join(b"p:a%d=''" % i for i in range(9000)) + b"/>", id="prefix"
        ),
        pytest.param(b'<r xmlns :\n=\n"' + LONG + b'"/>', id="namespace, spaced"),
        pytest.param(b"xmlns:" * (MAX_BYTES // 6), id="search"),
        pytest.param(b"<r>" + b"&#65;" * (MAX_BYTES // 5 - 10) + b"</r>", id="references"),
        pytest.param(b"<UserPassword " + LONG + b"='>'/>", id="start tag"),
    ],
)
def test_intricate_document_costs_little(data: bytes) -> None:
    for parse in (parse_ovf_env, redact):
        seconds, peak = cost(parse, data)
        assert seconds < 5
        assert peak < 16 * MIB


# One fragment per way to write the same password; {} stands for it.
SPELLINGS = {
    "plain": "{0}",
    "decimal references": "{1}",
    "hexadecimal references": "{2}",
    "CDATA": "<![CDATA[{3}]]>",
    "CDATA in pieces": "<![CDATA[{4}]]><![CDATA[{5}]]>",
    "comment within": "{6}<!-- {7} -->{8}",
    "processing instruction within": "{6}<?x {7}?>{8}",
    "in a child element": "<Value>{0}</Value>",
    "a password element within": "<UserPassword>{0}</UserPassword>",
}


def spellings(password: str) -> dict[str, str]:
    head, tail = password[: len(password) // 2], password[len(password) // 2 :]
    cdata = [text.replace("]]>", "]]]]><![CDATA[>") for text in (password, head, tail)]
    harmless = re.sub("[-?<>&]", "_", password)
    decimal = "".join(f"&#{ord(c)};" for c in password)
    hexadecimal = "".join(f"&#x{ord(c):X};" for c in password)
    return {
        name: form.format(escape(password), decimal, hexadecimal, *cdata, escape(head), harmless, escape(tail))
        for name, form in SPELLINGS.items()
    }


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    "tag",
    [
        "UserPassword",
        "AdminPassword",
        "adminPassword",
        "userpassword",
        "wa:UserPassword",
        "x:UserPassword xmlns:x='urn:x'",
    ],
)
def test_redaction_leaves_nothing_of_the_password_and_all_else(spelling: str, tag: str) -> None:
    element = f"<{tag}>{spellings('Tr0ub4dor&3')[spelling]}</{tag.split()[0]}>"
    # The document around it in all its detail, with a byte order mark so that offsets are put to the test.
    head, tail = ("\N{BYTE ORDER MARK}".encode() + FULL).split(b"<UserPassword>Corr&amp;ct horse</UserPassword>")
    redacted = redact(head + element.encode() + tail)
    assert redacted == head + f"<{tag}>REDACTED</{tag.split()[0]}>".encode() + tail
    assert parse_ovf_env(redacted).password is None


@pytest.mark.parametrize(
    ("element", "redacted"),
    [
        ("<UserPassword/>", "<UserPassword/>"),
        ("<UserPassword />", "<UserPassword />"),
        ("<UserPassword></UserPassword >", "<UserPassword></UserPassword >"),
        ("<UserPassword\n>x</UserPassword\n>", "<UserPassword\n>REDACTED</UserPassword\n>"),
        ("<UserPassword a='x>' b=\"'x\">x</UserPassword>", "<UserPassword>REDACTED</UserPassword>"),
        ("<UserPassword a = 'x' />", "<UserPassword />"),
        (f"<p:UserPassword a='x' xmlns:p='{WA}'>x</p:UserPassword>",
         f"<p:UserPassword xmlns:p='{WA}'>REDACTED</p:UserPassword>"),
        (f"<UserPassword xmlns = \"{WA}\" a='x'>x</UserPassword>",
         f'<UserPassword xmlns = "{WA}">REDACTED</UserPassword>'),
        ("<UserPassword xmlnsa='x' b=\" xmlns='x'\">x</UserPassword>", "<UserPassword>REDACTED</UserPassword>"),
        ("<UserPassword>x</UserPassword><AdminPassword>y</AdminPassword>",
         "<UserPassword>REDACTED</UserPassword><AdminPassword>REDACTED</AdminPassword>"),
        ("<DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>",
         "<DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>"),
    ],
)  # fmt: skip
def test_redaction_rewrites_the_password_element_alone(element: str, redacted: str) -> None:
    assert redact(ovf_env(HOST + element)) == ovf_env(HOST + redacted)


def test_redaction_of_a_document_without_a_password_is_the_document() -> None:
    assert redact(ovf_env()) == ovf_env()


XML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"))


@given(XML_TEXT.filter(lambda text: text.strip("* ") and len(text.encode()) < 512), st.sampled_from(sorted(SPELLINGS)))
@example("]]>", "CDATA")
def test_redacted_document_reads_as_before_but_for_the_password(password: str, spelling: str) -> None:
    tail = "<UserName>u</UserName><CustomData>QUI=</CustomData>"
    data = ovf_env(f"{HOST}<UserPassword>{spellings(password)[spelling]}</UserPassword>{tail}")
    redacted = redact(data)
    assert redacted == ovf_env(f"{HOST}<UserPassword>REDACTED</UserPassword>{tail}")
    assert redact(redacted) == redacted
    if "element" not in spelling and password != "REDACTED":
        assert parse_ovf_env(data).password is not None
    assert parse_ovf_env(redacted) == parse_ovf_env(ovf_env(HOST + tail))


@given(st.binary() | mutations(FULL))
def test_any_bytes_are_a_value_or_a_provisioning_error(data: bytes) -> None:
    for parse in (parse_ovf_env, redact):
        try:
            parse(data)
        except ProvisioningError as error:
            assert error.reason.name.startswith(("OVF_", "INVALID_"))
            assert "Corr" not in str(error)


@pytest.mark.parametrize("before", [b"", b"\n", b" \r\n\t"])
@pytest.mark.parametrize("after", [b"", b"\0", b"\0" * 512])
def test_padding_around_the_document_is_passed_over(before: bytes, after: bytes) -> None:
    document = ovf_env("<wa:UserName>azureuser</wa:UserName><wa:UserPassword>pass</wa:UserPassword>")
    padded = before + document + after
    assert parse_ovf_env(padded).username == parse_ovf_env(document).username == "azureuser"
    assert redact(padded) == redact(document)
