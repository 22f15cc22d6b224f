"""Provision a Linux VM on Azure at first boot, without an agent.

Importing the package costs nothing: it holds the version and imports nothing.
"""

__version__ = "0.1.0"
