"""The emulated platform: WireServer, IMDS and provisioning media, for tests and for trying minprov without Azure.

It is a program of its own (``python -m minprov.emulator``); nothing that runs at first boot imports it.

    vm            the virtual machine the platform believes in; every document below is made from it
    ovf_env       VirtualMachine -> ovf-env.xml
    instance      VirtualMachine -> IMDS instance document
    goal_state    VirtualMachine -> goal state and the documents it links
    certificates  the one linked document that is made for its reader
    media         the provisioning media as an image file; `sample` has that of the sample VM ready-made

    exchange      a request, and the reply the platform decides on
    wireserver    request -> reply, as 168.63.129.16 gives it; `host_plugin` for its other port
    imds          request -> reply, as 169.254.169.254 gives it
    faults        what goes wrong, read from a file
    delivery      a reply on its way out, damaged as the faults say
    platform      sockets, every request as it was judged, the health the platform was told

    cli, record   the command line and the lines it prints; `options` are those it shares with `guest`, `tables` are
                  its TOML files
    guest         a real machine under QEMU on this platform: ``python -m minprov.emulator boot IMAGE``
"""
