"""Runs the unmodified program on a machine of its own, against the emulated platform at its real addresses.

case.py      what a case says: tests/cases/NAME/case.toml -> values           pure
linux.py     the system calls that Python does not have
disk.py      a media file that answers with an error, or never (FUSE)
machine.py   namespaces, a tree over this machine's own, firmware, devices, addresses
changes.py   what a run changed in the tree
tracer.py    follows a process and its descendants by ptrace(2) and stops them at system calls
executions.py  records the programs that come of a command, by the tracer
driver.py    one case on one machine -> what was observed
server.py    a process that imports all that once, and forks for each case
client.py    the tests' side of it: many cases at a time, each result awaited by its own test
"""
