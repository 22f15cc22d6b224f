"""The hash of a password, with the method that the configuration names, and the proof of one.

SHA-crypt is computed here, the same everywhere: `formats.sha_crypt`. yescrypt, for which the standard library has
nothing, by libxcrypt: the library with which the system's own programs will verify it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minprov.config import PasswordMethod
from minprov.errors import ProvisioningError, Reason
from minprov.formats.sha_crypt import new_salt, sha256_crypt, sha512_crypt, verify

if TYPE_CHECKING:
    from minprov.model import Secret

LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")  # libxcrypt with and without the interfaces that only glibc had
YESCRYPT = "$y$"


def hash_password(password: Secret, method: PasswordMethod) -> str:
    """Return the field of shadow(5) for a password.

    Raises:
        ProvisioningError: TOOL_NOT_FOUND, where the system has no libcrypt that knows the method.

    """
    if method is PasswordMethod.SHA512:
        return sha512_crypt(password, new_salt())
    if method is PasswordMethod.SHA256:
        return sha256_crypt(password, new_salt())
    library = _libcrypt()
    salt = library and library.crypt_gensalt(YESCRYPT.encode(), 0, None, 0)
    hashed = salt and _crypt(library, password, salt)
    if not hashed:
        raise ProvisioningError(Reason.TOOL_NOT_FOUND, tool="libcrypt", detail="needed for password.method = yescrypt")
    return str(hashed)


def is_hash_of(password: Secret, field: str) -> bool:
    """Tell whether a field of shadow(5) is the hash of this password; one that nothing here can tell of is not."""
    if not field.startswith(YESCRYPT):
        return verify(password, field)
    library = _libcrypt()
    return library is not None and _crypt(library, password, field.encode(errors="surrogateescape")) == field


def _crypt(library: Any, password: Secret, setting: bytes) -> str | None:  # noqa: ANN401  # a library has no type
    hashed: bytes | None = library.crypt(password.reveal().encode(), setting)
    return hashed.decode() if hashed and hashed.startswith(YESCRYPT.encode()) else None


def _libcrypt() -> Any | None:  # noqa: ANN401  # a library has no type
    """Return libxcrypt, or None; a Python without ctypes, or one that may not load anything, has none."""
    try:
        from ctypes import CDLL, c_char_p, c_int, c_ulong
    except (ImportError, MemoryError):  # the latter where no memory may be executable: libffi's trampolines
        return None
    for name in LIBRARIES:
        try:
            library = CDLL(name)
            library.crypt_gensalt.argtypes = (c_char_p, c_ulong, c_char_p, c_int)
            library.crypt.argtypes = (c_char_p, c_char_p)
            library.crypt_gensalt.restype = library.crypt.restype = c_char_p
        except (OSError, AttributeError):  # not there, or a libcrypt that is older than yescrypt
            continue
        return library
    return None
