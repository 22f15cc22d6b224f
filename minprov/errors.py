"""Every way a run can fail: one exception type and one closed list of reasons.

    ProvisioningError            the only exception that leaves a module
      .reason: Reason            a fixed phrase, an exit status, and what to tell the person who reads it
      .data: dict[str, str]      supporting data: what it happened to (never a secret, never a whole document)

A module that meets a foreign error (OSError, XML, JSON, aiohttp, struct) translates it where it arises and keeps it as
``__cause__``. Any other exception that reaches the top is a bug, reported as `Reason.INTERNAL` with its traceback.

Phrases published by Microsoft for provisioning failures are used where one fits, so that searching for the phrase finds
the vendor's page: https://learn.microsoft.com/azure/virtual-machines/linux/cloud-init-troubleshooting
"""

from __future__ import annotations

import os

from minprov.definitions import Enum


class Reason(Enum):
    """Why a run failed: (phrase, exit status from sysexits.h, cause, what to do next)."""

    USAGE = (
        "invalid command line",
        os.EX_USAGE,
        "A flag is unknown, incomplete, or contradicts another one.",
        "Run `minprov --help`.",
    )
    CONFIG_INVALID = (
        "invalid configuration",
        os.EX_CONFIG,
        "A configuration file has an unknown key, a value of the wrong type, or is not TOML.",
        "Correct the key named in the message; `minprov --dry-run` shows what is in force.",
    )
    OTHER_PROVISIONER = (
        "another provisioning agent is enabled",
        os.EX_CONFIG,
        "The agent named in the message is enabled to provision this machine as well; two provisioners would race.",
        'Disable one of them in the image. A waagent that is there for extensions: `other-provisioners = "prepare"`.',
    )
    NOT_PERMITTED = (
        "not permitted",
        os.EX_NOPERM,
        "The system refused an operation, most often because minprov was not started as root.",
        "Run as root, or use --dry-run.",
    )
    NOT_AZURE = (
        "this machine is not on Azure",
        os.EX_NOINPUT,
        "Neither provisioning media nor a platform endpoint answered, and the machine's firmware does not name Azure.",
        "Try `python -m minprov --dry-run --emulated`.",
    )
    NO_SOURCE = (
        "no provisioning source found",
        os.EX_NOINPUT,
        "Neither provisioning media nor IMDS delivered the VM's properties before the deadline.",
        "Check that the kernel has sr_mod with hv_storvsc or ata_piix, and that 169.254.169.254 is reachable.",
    )
    NO_REPORT = (
        "no report",
        os.EX_NOINPUT,
        "`minprov status` found no report: minprov has not run on this system, or keeps its state elsewhere.",
        "Look at the unit's log: `journalctl -u minprov`.",
    )
    MEDIA_NOT_FOUND = (
        "provisioning media not found",
        os.EX_NOINPUT,
        "No optical drive, no disc in it, or no disc with an ovf-env.xml.",
        "Normal on a VM made from a specialized image. Otherwise check the drivers: sr_mod, hv_storvsc, ata_piix.",
    )
    MEDIA_UNREADABLE = (
        "failed to read provisioning media",
        os.EX_IOERR,
        "The device or image reported an I/O error or did not answer in time.",
        "Look for medium errors in the kernel log; delete and re-create the VM.",
    )
    MEDIA_CORRUPT = (
        "corrupt file system on provisioning media",
        os.EX_DATAERR,
        "A structure on the disc contradicts ECMA-167 or ECMA-119.",
        "Delete and re-create the VM; if it persists, report it with the structure named in the message.",
    )
    MEDIA_UNSUPPORTED = (
        "unsupported file system on provisioning media",
        os.EX_DATAERR,
        "The disc has a file system or a UDF feature that minprov does not read.",
        "Report it with the feature named in the message.",
    )
    OVF_PARSE = (
        "error parsing ovf-env.xml",
        os.EX_DATAERR,
        "The ovf-env is not well-formed XML, or uses a construct that is refused (DTD, entity).",
        "Delete and re-create the VM.",
    )
    OVF_FOREIGN = (
        "ovf-env.xml is not from Azure",
        os.EX_DATAERR,
        "The document has no ProvisioningSection in Azure's namespace: the disc belongs to another platform.",
        "Such a disc is passed over; attach the right one, or name it with --media.",
    )
    OVF_INVALID = (
        "unexpected metadata parsing ovf-env.xml",
        os.EX_DATAERR,
        "An element of the ovf-env is missing, duplicated, or has a value that cannot be used.",
        "Correct the property named in the message and re-create the VM.",
    )
    IMDS_CONNECTION = (
        "connection error querying IMDS",
        os.EX_UNAVAILABLE,
        "The connection to the metadata service was refused, reset, or had no route.",
        "Check the route to 169.254.169.254 and the firewall of the image.",
    )
    IMDS_CONNECT_TIMEOUT = (
        "connection timeout querying IMDS",
        os.EX_UNAVAILABLE,
        "The metadata service did not accept a connection.",
        "Check that no NSG or firewall in the image blocks 169.254.169.254.",
    )
    IMDS_READ_TIMEOUT = (
        "read timeout querying IMDS",
        os.EX_UNAVAILABLE,
        "The metadata service accepted the connection and did not answer in time.",
        "Check the firewall of the image; delete and re-create the VM.",
    )
    IMDS_RESERVED = (
        "IMDS is reserved by systemd",
        os.EX_UNAVAILABLE,
        "The way to IMDS is prohibited, as by `systemd.imds.network=locked`, and systemd-imdsd gave no answer.",
        "Boot with `systemd.imds.network=unlocked`, or have systemd-imdsd.socket running; with media nothing is lost.",
    )
    IMDS_HTTP = (
        "http error querying IMDS",
        os.EX_PROTOCOL,
        "The metadata service answered with a status that retrying does not cure.",
        "See http_code in the report.",
    )
    IMDS_PARSE = (
        "error parsing IMDS metadata",
        os.EX_DATAERR,
        "The metadata service's answer is not the JSON document it should be.",
        "Delete and re-create the VM.",
    )
    IMDS_INVALID = (
        "invalid IMDS metadata",
        os.EX_DATAERR,
        "A value in the metadata cannot be used.",
        "Correct the property named by `key` and re-create the VM.",
    )
    WIRESERVER_CONNECTION = (
        "connection error querying WireServer",
        os.EX_UNAVAILABLE,
        "The connection to the platform's control endpoint was refused, reset, or had no route.",
        "Check the route to 168.63.129.16 and the firewall of the image.",
    )
    WIRESERVER_TIMEOUT = (
        "timeout querying WireServer",
        os.EX_UNAVAILABLE,
        "The platform's control endpoint did not answer in time.",
        "Check that no firewall in the image blocks 168.63.129.16.",
    )
    WIRESERVER_HTTP = (
        "http error querying WireServer",
        os.EX_PROTOCOL,
        "The platform's control endpoint answered with a status that retrying does not cure.",
        "See http_code in the report.",
    )
    GOAL_STATE_INVALID = (
        "error parsing goal state",
        os.EX_PROTOCOL,
        "The goal state is not the document it should be, or lacks an element the health report must echo.",
        "Delete and re-create the VM; report it with the element named in the message.",
    )
    INVALID_HOSTNAME = (
        "invalid hostname",
        os.EX_DATAERR,
        "The hostname is not made of RFC 1123 labels, or is longer than 64 characters.",
        "Choose another computer name and re-create the VM.",
    )
    INVALID_USERNAME = (
        "invalid username",
        os.EX_DATAERR,
        "The user name could be misread by account tools or is not portable.",
        "Choose another administrator name and re-create the VM.",
    )
    INVALID_PASSWORD = (
        "invalid password",
        os.EX_DATAERR,
        "The password contains a line break or NUL, or is longer than account tools accept.",
        "Choose another password and re-create the VM.",
    )
    INVALID_SSH_KEY = (
        "invalid SSH public key",
        os.EX_DATAERR,
        "A public key is in no format that OpenSSH accepts and that can be converted.",
        "Correct the key with the index named in the message and re-create the VM.",
    )
    MISSING_PROPERTY = (
        "required property missing",
        os.EX_DATAERR,
        "No source gave a value for a required property.",
        "Check the sources in the report; a missing disc may mean a missing driver in the image.",
    )
    NO_CREDENTIALS = (
        "no password and no SSH key",
        os.EX_DATAERR,
        "No source gave a way to log in, so the VM would be unreachable.",
        "Create the VM with a key or a password; passwords arrive by provisioning media only, so check its driver.",
    )
    UNSUPPORTED_PREPROVISIONING = (
        "unsupported pre-provisioning type",
        os.EX_DATAERR,
        "The VM comes from a platform pool and receives its identity later; it is not to wait for that, or cannot.",
        "Set `preprovisioning` to `wait` in the image, as docs/pooled.md says, or create the VM without a pool.",
    )
    PROXY_AGENT_NOT_FOUND = (
        "azure-proxy-agent not found",
        os.EX_OSERR,
        "The VM was created with the guest proxy agent enabled, and the image does not carry it.",
        "Install azure-proxy-agent in the image, or create the VM without it.",
    )
    PROXY_AGENT_STATUS = (
        "azure-proxy-agent status failure",
        os.EX_OSERR,
        "The guest proxy agent did not become ready.",
        "Read the proxy agent's log in the VM.",
    )
    SYSTEM_ACCOUNT = (
        "refusing to provision a system account",
        os.EX_DATAERR,
        "The user exists in the image with a uid below UID_MIN or above UID_MAX, or is nobody.",
        "Choose another administrator name, or set `user.allow-system-account = true`, which does not admit nobody.",
    )
    FILE_SYSTEM_HANGS = (
        "file system does not answer",
        os.EX_IOERR,
        "A look at the path in the message did not end: it may be on a network file system whose server is not there.",
        "Mount it after provisioning, or give the account a home directory on a local file system.",
    )
    HOME_REFUSED = (
        "home directory cannot be used",
        os.EX_OSERR,
        "What stands in the place of the user's home directory belongs to somebody else, or others can change it.",
        "Give it to the account in the image, remove it, or give the account another home directory.",
    )
    DIRECTORY_ACCOUNT = (
        "the account is in a directory service",
        os.EX_DATAERR,
        "The system's own files do not have the user, and another database of nsswitch.conf does.",
        "Choose another administrator name, or set `user.allow-directory-account = true`.",
    )
    TOOL_NOT_FOUND = (
        "required system tool not found",
        os.EX_OSERR,
        "The image lacks a program that is needed to apply a property.",
        "Install the program named in the message in the image, or switch the property off.",
    )
    TOOL_FAILED = (
        "system tool failed",
        os.EX_OSERR,
        "A program that applies a property exited with an error, was killed, or did not end in time.",
        "Read the program's own message in the report.",
    )
    WRITE_FAILED = (
        "failed to write to the file system",
        os.EX_IOERR,
        "A file could not be written: the file system is full, read-only, or faulty.",
        "Make the path writable or configure another one.",
    )
    LOGIN_REFUSED = (
        "sshd does not admit the user",
        os.EX_CONFIG,
        "AllowUsers, AllowGroups, DenyUsers, DenyGroups or PermitRootLogin keeps the administrator out, or"
        " ListenAddress or hosts.deny closes sshd to other machines.",
        "Change the setting at the file and line in the report, or have the user join the group by `user.groups`.",
    )
    KEYS_NOT_ACCEPTED = (
        "sshd does not accept the keys of the user",
        os.EX_CONFIG,
        "A setting of sshd switches key login off or refuses the type of the key, takes it for revoked, or sshd cannot"
        " read the keys.",
        "Change the setting at the file and line in the report, or the mode of what leads to the path.",
    )
    LOGIN_METHODS = (
        "sshd asks for more than the VM was given",
        os.EX_CONFIG,
        "AuthenticationMethods asks for a way to log in that the VM was created without.",
        "Change the setting at the file and line in the report, or create the VM with what it asks for.",
    )
    FORCED_COMMAND = (
        "sshd gives the user no shell",
        os.EX_CONFIG,
        "ForceCommand replaces the shell of the administrator by a program that admits nobody, ChrootDirectory hides"
        " the system from it, or MaxSessions is 0.",
        "Change the setting at the file and line in the report: Match can except the administrator from it.",
    )
    PASSWORD_LOGIN = (
        "password login is not as the platform says",
        os.EX_CONFIG,
        "sshd has another setting in force than the one that was written, for at least one address.",
        "Change the setting at the file and line in the report, or set `sshd.policy`.",
    )
    SUDO_REFUSED = (
        "sudo does not let the user become root",
        os.EX_CONFIG,
        "sudo says that the administrator may not run everything as root, or cannot be asked.",
        "Change the rule at the file and line in the report, or what sudo itself complains of; or set `sudo.policy`.",
    )
    LOGIN_SHELL = (
        "the shell of the user admits nobody",
        os.EX_CONFIG,
        "The account of the image has a shell such as nologin, or one that is not there.",
        "Give the account a shell in the image (`usermod -s`), or choose another administrator name.",
    )
    LOGINS_CLOSED = (
        "logins are closed",
        os.EX_CONFIG,
        "The image has a file by which PAM, or sshd, admits nobody but root: nologin(5).",
        "Remove the file from the image.",
    )
    PAM_REFUSED = (
        "PAM does not admit the user",
        os.EX_CONFIG,
        "A module of PAM, such as pam_access, pam_succeed_if or pam_listfile, keeps the administrator from logging in"
        " or from sudo.",
        "Change what the module reads, or its line: the report names the service and the first module that may say so.",
    )
    EMERGENCY_MODE = (
        "the boot has ended in emergency mode",
        os.EX_CONFIG,
        "What the boot needs has failed, such as a file system of /etc/fstab whose device is not there: systemd starts"
        " no logins.",
        "Give what not every VM has the option nofail in /etc/fstab, and see `systemctl --failed`; `minprov check`"
        " names such lines of an image.",
    )
    ACCOUNT_EXPIRED = (
        "the account of the user has expired",
        os.EX_CONFIG,
        "The account of the image, or its password, is too old for a login, and no tool is there that changes that.",
        "Have shadow-utils in the image, or an account that does not expire.",
    )
    READ_BACK = (
        "applied property does not hold",
        os.EX_OSERR,
        "A property was applied without an error, and reading it back from the system shows something else.",
        "Something in the image undoes or ignores the change; the message names the property.",
    )
    RESOURCE_DISK_IN_USE = (
        "resource disk in use by others",
        os.EX_OSERR,
        "The temporary disk, or a partition of it, is mounted elsewhere, is swapped on, or is part of another device.",
        "Leave the disk to one program: take it out of fstab, or set the policy of `resource-disk` to `off`.",
    )
    RESOURCE_DISK_HOLDS_DATA = (
        "resource disk holds data",
        os.EX_DATAERR,
        "The temporary disk is not as the platform makes it, is not blank, or cannot be read; it was left as it is.",
        "Look at it: the message says what is there. To have it formatted, erase it first, with wipefs or blkdiscard.",
    )
    RESOURCE_DISK_NOT_USABLE = (
        "resource disk not usable",
        os.EX_IOERR,
        "The temporary disk could not be read, formatted or mounted, or its mount point is in use.",
        "Read the message of the program that failed; look for the disk in the kernel log.",
    )
    SWAP_NOT_ACTIVE = (
        "swap not active",
        os.EX_OSERR,
        "The swap file could not be made or turned on, or there is no temporary disk that minprov has mounted.",
        "Read the message of the program that failed; see that there is room on the temporary disk.",
    )
    DISK_TIMEOUT_NOT_SET = (
        "disk time-out not set",
        os.EX_OSERR,
        "The kernel did not take the time-out of a disk, or the udev rule could not be written.",
        "Look at the file in /sys that the message names; where /etc is read-only, put the rule into the image.",
    )
    NO_RESOURCES = (
        "too little memory, processes or open files",
        os.EX_OSERR,
        "A limit of the unit, of its cgroup or of the machine leaves the run less than it needs.",
        "Raise the limit that the report names; 128 MiB of address space and 32 open files are enough.",
    )
    REPORT_FAILED = (
        "provisioned but not reported",
        os.EX_UNAVAILABLE,
        "Every property was applied and read back, but no channel accepted the Ready report.",
        "Start minprov again: it posts the report without applying anything twice.",
    )
    DEADLINE = (
        "provisioning deadline passed",
        os.EX_TEMPFAIL,
        "The run did not finish in the time it was given.",
        "The report names what was being waited for; raise --timeout if that is expected to take longer.",
    )
    HOOK_FAILED = (
        "hook failed",
        os.EX_OSERR,
        "A program in the image's directory of hooks failed, did not end in its time, or could not be started.",
        "Read the hook's output in /var/lib/minprov/hooks-before-ready.log; it is not run again for this VM.",
    )
    HOOK_REFUSED = (
        "hook refused",
        os.EX_CONFIG,
        "Others than root may change a hook or a directory above it, or a link or nothing is in its place.",
        "Have the file and every directory above it owned by root, not writable by others, and no link.",
    )
    CERTIFICATES_UNREADABLE = (
        "certificates cannot be decrypted",
        os.EX_DATAERR,
        "What WireServer delivered as certificates is damaged, for another key, or has a cipher unknown here.",
        "Fetch them again by `minprov certificates`; certificates of the Key Vault extension are the extension's.",
    )
    HOSTNAME_UNKNOWN = (
        "hostname unknown to the DNS of the platform",
        os.EX_TEMPFAIL,
        "The platform's DNS has no address for the hostname in the domain of the lease, or does not answer.",
        "See that the DHCP client sends the name: `minprov publish-hostname`. With a DNS of your own there is none.",
    )
    CERTIFICATE_NOT_DELIVERED = (
        "certificate not delivered",
        os.EX_UNAVAILABLE,
        "The ovf-env names a certificate by its thumbprint, and WireServer has not delivered it, or not with its key.",
        "Create the VM with the certificate (`osProfile.secrets`), exportable, or without what names it.",
    )
    KEY_PAIR_REFUSED = (
        "key pair cannot be put in its place",
        os.EX_CANTCREAT,
        "The ovf-env names a path that is not below the user's home, another file is there, or ssh has no such keys.",
        "Name a path such as $HOME/.ssh/id_rsa; a file that is there is never replaced.",
    )
    TERMINATED = (
        "terminated by a signal",
        os.EX_TEMPFAIL,
        "The service manager or a person stopped the run.",
        "Start minprov again: it goes on where it stopped.",
    )
    ANOTHER_RUN = (
        "another run is under way",
        os.EX_TEMPFAIL,
        "A run that was started earlier had not ended by the deadline of this one. It tells the platform itself.",
        "Wait for it, or see in its log what it waits for; the kernel releases its lock when it ends.",
    )
    IMAGE_INVALID = (
        "not a usable disk image",
        os.EX_DATAERR,
        "The file is no disk image, is cut short, contradicts its format, or depends on other files.",
        "Make the image anew; the message names the structure that is wrong.",
    )
    IMAGE_UNREADABLE = (
        "the image cannot be read on this machine",
        os.EX_UNAVAILABLE,
        "The image's format or file systems need root, a kernel driver or a program that this machine lacks.",
        "Run as root, or install libguestfs (guestmount), which reads images without root.",
    )
    IMAGE_IN_USE = (
        "the image is in use",
        os.EX_TEMPFAIL,
        "A virtual machine, a mount or a writer has the disk open, so a copy would mix two states of it.",
        "Shut the machine down, unmount the disk, then try again.",
    )
    OUTPUT_FAILED = (
        "the output was not written",
        os.EX_CANTCREAT,
        "A file of this name exists, or the disk is full, read-only or faulty.",
        "Give another name or make room; nothing is overwritten and no partial file is left.",
    )
    NOT_PROVISIONED = (
        "nothing says that this system was provisioned",
        os.EX_NOINPUT,
        "There is neither a manifest of minprov's nor waagent's state, so what is of this machine is not known.",
        "Look at `minprov deprovision --dry-run --without-manifest`, then leave `--dry-run` out.",
    )
    USER_LOGGED_IN = (
        "the user to be removed is logged in",
        os.EX_TEMPFAIL,
        "The account that `--user` removes has processes.",
        "Log in as somebody else, or give `--yes`, with which the account goes away under its session.",
    )
    NOT_CONFIRMED = (
        "not confirmed",
        os.EX_TEMPFAIL,
        "Nobody answered yes to what cannot be undone. Nothing was changed.",
        "Give `--yes` where nobody can be asked.",
    )
    NOT_LOADED = (
        "program cannot be loaded",
        os.EX_SOFTWARE,
        "A package that minprov needs is not in the image, is damaged, or is not one for its Python.",
        "Install in the image what the report names: aiohttp, aiofiles, defusedxml, or minprov itself.",
    )
    INTERNAL = (
        "unhandled exception",
        os.EX_SOFTWARE,
        "A defect in minprov.",
        "Report it with the traceback from the log.",
    )

    def __init__(self, phrase: str, exit_status: int, cause: str, action: str) -> None:
        self.phrase = phrase
        self.exit_status = exit_status
        self.cause = cause
        self.action = action


class ProvisioningError(Exception):
    """A failure with a `Reason` and the data a person needs to act on it.

    `data` values are turned into strings; absent (`None`) ones are left out.
    """

    def __init__(self, reason: Reason, **data: object) -> None:
        super().__init__(reason, data)
        self.reason = reason
        self.data = {key: str(value) for key, value in data.items() if value is not None}

    def __str__(self) -> str:
        if not self.data:
            return self.reason.phrase
        return f"{self.reason.phrase}: " + ", ".join(f"{key}={value}" for key, value in self.data.items())


def excerpt(text: str, limit: int = 64) -> str:
    """Return a foreign value as a message may show it: printable ASCII, everything else escaped, and short."""
    shown = ascii(text[: limit + 1])[1:-1]
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
