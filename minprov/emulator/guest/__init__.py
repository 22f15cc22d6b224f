"""A real guest on the emulated platform: a machine under QEMU, in a network that has the platform's addresses.

    transcript   what a process has said so far, and waiting for what it says next
    tools        the system's programs that this takes, or an error that names what is missing
    network      a name space with a tap, DHCP and a name server; everything below runs in it
    platform     the emulator, as a process in that network
    machine      QEMU with Azure's identity: serial console, monitor, optical drive
    image        a disk image as its owner has it, and the firmware that starts it
    login        SSH, as a person would log in
    boot, cli    ``python -m minprov.emulator boot IMAGE``: does an image provision itself?

The VM tests use all but the last line.
"""
