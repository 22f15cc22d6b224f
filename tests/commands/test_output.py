"""What is printed does not fail for the encoding of the place that it is printed to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

CODE = """
from minprov.commands.output import print_result
from minprov.outcome.result import Result, Source, SourceState, to_document
result = Result(vm_id="\\u2028 \\udc80")
result.media = Source(SourceState.MISSING, "é" * 200)
print_result(to_document(result), as_json=False)
"""


def test_a_locale_that_lacks_a_character_gets_its_number() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"VM id \\u2028 \\udc80" in done.stdout
    assert "é".encode("latin-1") in done.stdout


def test_a_command_that_is_interrupted_has_no_traceback() -> None:
    code = """
import sys
from minprov.cli import run
from minprov.commands import import_waagent_conf
def interrupt(argv):
    raise KeyboardInterrupt
import_waagent_conf.run = interrupt
sys.exit(run(["import-waagent-conf"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"")
