"""The log: to stderr, and with priorities where that is the journal."""

from __future__ import annotations

import os

from minprov.deferred import deferred, patterns_deferred

with deferred("traceback"), patterns_deferred():  # traceback is for exceptions, of which a good run logs none
    import logging

LOG_FORMAT = "minprov: %(message)s"
LOG_LEVELS = ("debug", "info", "warning", "error")
JOURNAL_PRIORITIES = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}  # sd-daemon(3)


def set_up_logging(level: str) -> None:
    """Log from `level` on, one of `LOG_LEVELS`; systemd's own setting, SYSTEMD_LOG_LEVEL, comes first."""
    level = os.environ.get("SYSTEMD_LOG_LEVEL", level)
    handler = logging.StreamHandler()
    handler.setFormatter((_JournalFormatter if "JOURNAL_STREAM" in os.environ else logging.Formatter)(LOG_FORMAT))
    logging.basicConfig(handlers=[handler], level=level.upper() if level in LOG_LEVELS else "INFO")


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"<{JOURNAL_PRIORITIES.get(record.levelname, 6)}>{super().format(record)}"
