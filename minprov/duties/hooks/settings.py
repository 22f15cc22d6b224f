"""What can be configured of hooks: without a directory there are none."""

from minprov.config import OnFailure, Schema, Setting
from minprov.definitions import NamedTuple


class Options(NamedTuple):
    """Every setting, with its default."""

    directory: str = ""
    time_limit: float = 60.0
    failure: OnFailure = OnFailure.FAIL


SETTINGS = {
    "hooks.directory": Setting(
        "directory",
        "Where `before-ready.d`, `after-ready.d` and `failed.d` are, whose programs are run; only without systemd.",
        r"(/[^\x00]*)?",
        "an absolute path, or an empty string",
    ),
    "hooks.time-limit": Setting(
        "time_limit", "Seconds for each program; before Ready, the run's own deadline counts as well."
    ),
    "hooks.failure": Setting("failure", "What it means before Ready that a program fails."),
}
SCHEMA = Schema(Options, SETTINGS)
