"""OpenSSL's library, which sshd and Python's own hashlib bring along, by ctypes: no key leaves this process's memory.

Signatures are those of OpenSSL's manual, section 3, and hold from 1.1 on. What is made here is not freed: the process
ends when it has written the files.
"""

from __future__ import annotations

from ctypes import CDLL, byref, c_char_p, c_int, c_long, c_void_p, string_at
from typing import Any

from minprov.duties.certificates.contents import Contents, Item
from minprov.errors import ProvisioningError, Reason

LIBRARIES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so.4")
RSA, KEYGEN, RSA_BITS = 6, 1 << 2, 0x1003  # EVP_PKEY_RSA, EVP_PKEY_OP_KEYGEN, EVP_PKEY_CTRL_RSA_KEYGEN_BITS
KEY_BITS = 2048
ASCII = 0x1001  # MBSTRING_ASC
BIO_INFO = 3  # BIO_CTRL_INFO
KEY_BAG, SHROUDED_KEY_BAG, CERTIFICATE_BAG = 150, 151, 152  # obj_mac.h
LIFETIME = 2 * 86400
POINTERS = (
    *("EVP_PKEY_CTX_new_id", "X509_new", "X509_get_serialNumber", "X509_getm_notBefore", "X509_getm_notAfter"),
    *("X509_gmtime_adj", "X509_get_subject_name", "EVP_sha256", "BIO_new_mem_buf", "BIO_new", "BIO_s_mem"),
    *("d2i_CMS_bio", "d2i_PKCS12_bio", "PKCS12_unpack_authsafes", "PKCS12_unpack_p7data", "PKCS12_unpack_p7encdata"),
    *("OPENSSL_sk_value", "PKCS12_SAFEBAG_get0_p8inf", "PKCS12_decrypt_skey", "PKCS12_SAFEBAG_get1_cert"),
    *("X509_get_pubkey", "EVP_PKCS82PKEY"),
)


class LibCrypto:
    """A transport key, made anew, and what was enveloped for it."""

    def __init__(self) -> None:
        """Load the library and make the key; OSError or AttributeError where there is none that can be used."""
        self._library = library = _load()
        context = library.EVP_PKEY_CTX_new_id(RSA, None)
        self._key = c_void_p()
        _require(context and library.EVP_PKEY_keygen_init(c_void_p(context)) == 1)
        library.EVP_PKEY_CTX_ctrl(c_void_p(context), RSA, KEYGEN, RSA_BITS, KEY_BITS, None)
        _require(library.EVP_PKEY_keygen(c_void_p(context), byref(self._key)) == 1)
        self._certificate = self._certify()

    def _certify(self) -> c_void_p:
        library = self._library
        certificate = c_void_p(library.X509_new())
        library.X509_set_version(certificate, c_long(2))
        library.ASN1_INTEGER_set(c_void_p(library.X509_get_serialNumber(certificate)), c_long(1))
        # A guest's clock may be behind the platform's.
        library.X509_gmtime_adj(c_void_p(library.X509_getm_notBefore(certificate)), c_long(-LIFETIME))
        library.X509_gmtime_adj(c_void_p(library.X509_getm_notAfter(certificate)), c_long(LIFETIME))
        library.X509_set_pubkey(certificate, self._key)
        name = c_void_p(library.X509_get_subject_name(certificate))
        library.X509_NAME_add_entry_by_txt(name, b"CN", ASCII, b"LinuxTransport", -1, -1, 0)
        library.X509_set_issuer_name(certificate, name)
        _require(library.X509_sign(certificate, self._key, c_void_p(library.EVP_sha256())) > 0)
        return certificate

    async def certificate(self) -> bytes:
        """Return the certificate for which the platform envelopes, in DER."""
        return self._encode("i2d_X509", self._certificate)

    async def open(self, envelope: bytes) -> Contents:
        """Return what is in the PKCS #12 file in the envelope (CMS, DER).

        Raises:
            ProvisioningError: CERTIFICATES_UNREADABLE.

        """
        library = self._library
        cms = c_void_p(library.d2i_CMS_bio(self._reader(envelope), None))
        opened = c_void_p(library.BIO_new(c_void_p(library.BIO_s_mem())))
        _require(cms.value and library.CMS_decrypt(cms, self._key, self._certificate, None, opened, 0) == 1)
        start = c_void_p()
        length = library.BIO_ctrl(opened, BIO_INFO, c_long(0), byref(start))
        pfx = c_void_p(library.d2i_PKCS12_bio(self._reader(string_at(start, length) if length > 0 else b""), None))
        _require(pfx.value)
        # RFC 7292 leaves open which of the two an empty password is, and writers differ.
        for password in (b"", None):
            contents = self._unpack(pfx, password)
            if contents:
                return contents
        raise _unreadable()

    def _unpack(self, pfx: c_void_p, password: bytes | None) -> Contents | None:
        library = self._library
        certificates, keys = [], []
        for safe in self._elements(library.PKCS12_unpack_authsafes(pfx)):
            bags = library.PKCS12_unpack_p7data(safe) or library.PKCS12_unpack_p7encdata(safe, password, 0)
            if not bags:
                return None
            for bag in self._elements(bags):
                match library.PKCS12_SAFEBAG_get_nid(bag):
                    case nid if nid in (KEY_BAG, SHROUDED_KEY_BAG):
                        shrouded = nid == SHROUDED_KEY_BAG
                        private = c_void_p(
                            library.PKCS12_decrypt_skey(bag, password, 0)
                            if shrouded
                            else library.PKCS12_SAFEBAG_get0_p8inf(bag)
                        )
                        public = private.value and library.EVP_PKCS82PKEY(private)
                        if not public:
                            return None
                        der = self._encode("i2d_PKCS8_PRIV_KEY_INFO", private)
                        keys.append(Item(der, self._encode("i2d_PUBKEY", c_void_p(public))))
                    case nid if nid == CERTIFICATE_BAG:
                        found = c_void_p(library.PKCS12_SAFEBAG_get1_cert(bag))
                        public = found.value and library.X509_get_pubkey(found)
                        if public:
                            der = self._encode("i2d_X509", found)
                            certificates.append(Item(der, self._encode("i2d_PUBKEY", c_void_p(public))))
        return Contents(certificates, keys)

    def _elements(self, stack: int | None) -> list[c_void_p]:
        _require(stack)
        library, pointer = self._library, c_void_p(stack)
        return [c_void_p(library.OPENSSL_sk_value(pointer, index)) for index in range(library.OPENSSL_sk_num(pointer))]

    def _reader(self, contents: bytes) -> c_void_p:
        self._kept = contents  # the library reads it where it is
        return c_void_p(self._library.BIO_new_mem_buf(contents, len(contents)))

    def _encode(self, function: str, value: c_void_p) -> bytes:
        der = c_void_p()
        length = getattr(self._library, function)(value, byref(der))
        _require(length > 0)
        return string_at(der, length)


def _load() -> Any:  # noqa: ANN401  # a library has no type
    for name in LIBRARIES:
        try:
            library = CDLL(name)
        except OSError:
            continue
        for function in POINTERS:
            getattr(library, function).restype = c_void_p
        library.BIO_ctrl.restype = c_long
        library.PKCS12_unpack_p7encdata.argtypes = (c_void_p, c_char_p, c_int)
        library.PKCS12_decrypt_skey.argtypes = (c_void_p, c_char_p, c_int)
        if hasattr(library, "OSSL_PROVIDER_load"):
            # RC2-40, with which older writers encrypt certificates; to name one provider unloads the default.
            library.OSSL_PROVIDER_load.argtypes = (c_void_p, c_char_p)
            library.OSSL_PROVIDER_load.restype = c_void_p
            for provider in (b"default", b"legacy"):
                library.OSSL_PROVIDER_load(None, provider)
        return library
    raise OSError("there is no libcrypto")


def _require(value: object) -> None:
    if not value:
        raise _unreadable()


def _unreadable() -> ProvisioningError:
    return ProvisioningError(Reason.CERTIFICATES_UNREADABLE, by="libcrypto")
