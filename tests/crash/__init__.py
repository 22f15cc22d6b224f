"""Kills the program, with all that it started, at every system call that changes the machine, and starts it again.

effects.py   which system calls are effects, and on what
machines.py  namespaces for each trial, and disks that forget what was not synced
trial.py     a run that is killed, a run that is not, and what must hold after each
campaign.py  which points are tried, and the figures
"""
