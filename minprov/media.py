"""The provisioning media: read the ovf-env from it. How that is done is in `discs`."""

from minprov.discs.reader import read_media


def read_ovf_env(path: str) -> bytes:
    """Return the ovf-env from a device, an image file, a directory, or an ovf-env.xml itself.

    Raises:
        ProvisioningError: MEDIA_NOT_FOUND, MEDIA_UNREADABLE, MEDIA_CORRUPT, MEDIA_UNSUPPORTED or NOT_PERMITTED.

    """
    return read_media(path).ovf_env
