"""Real guests under QEMU, judged from outside: `make test-vm`."""
