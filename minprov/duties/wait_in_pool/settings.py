"""What can be configured of pre-provisioned VMs: they are refused by default."""

from minprov.config import OnPool, Schema, Setting
from minprov.definitions import NamedTuple


class Options(NamedTuple):
    """Every setting, with its default."""

    preprovisioning: OnPool = OnPool.REFUSE


SETTINGS = {
    "preprovisioning": Setting(
        "preprovisioning",
        "What a VM of the platform's pool does; `wait`: it reports Ready to the pool, applies nothing, and is "
        "provisioned when it has got its owner; `refuse`: it fails with a reason of its own.",
    ),
}
SCHEMA = Schema(Options, SETTINGS)
