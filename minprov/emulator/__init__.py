"""The emulated platform: WireServer, IMDS and provisioning media, for tests and for trying minprov without Azure.

It is a program of its own (``python -m minprov.emulator``); nothing that runs at first boot imports it.

    vm            the virtual machine the platform believes in; every document below is made from it
    ovf_env       VirtualMachine -> ovf-env.xml
    goal_state    VirtualMachine -> goal state and the documents it links
    instance      VirtualMachine -> IMDS instance document
    wireserver    request -> reply, as 168.63.129.16 gives it
    imds          request -> reply, as 169.254.169.254 gives it
    faults        what goes wrong, read from a file
    delivery      a reply on its way out, damaged as the faults say
    platform      sockets, the record of every request, the health the platform was told
    media         the provisioning media as an image file
    sample        the sample VM's media, ready-made
"""
