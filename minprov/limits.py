"""Every time limit of the program, in seconds: what it bounds and why it is that long.

One table, so that whoever asks how long a boot can wait finds all of it here; `docs/limits.md` is made from it. These
are numbers, and the texts below them cost nothing at run time, for the last resort imports this before anything else.
What a setting decides has its default in `config` or in a duty's `settings`.
"""

# -- The run -----------------------------------------------------------------------------------------------------------

RUN_LIMIT = 600.0
"""The whole run, from its start to the accepted report, unless the setting `timeout` says otherwise."""
DEADLINE_SLACK = 0.5
"""After the deadline, for what ends by it itself: that can say more than what is ended."""
FAILURE_GRACE = 5.0
"""The failure report itself, which may start when the deadline has passed: counted from there, then."""
KILL_GRACE = 9.0
"""After the deadline, until the kernel ends the process, whatever it is doing."""
HEARTBEAT = 10.0
"""Between two lines on the console while something is waited for."""
ANOTHER_RUN_PAUSE = 0.1
"""Between two looks whether another run has ended, which is waited for until the deadline."""
DRY_RUN_LIMIT = 10.0
"""A dry run without `--timeout`: somebody is looking."""
DRY_RUN_GRACE = 1.0
"""In a dry run, for sources that the plan does not need, to be able to tell of them."""
SWITCH_INTERVAL = 0.0003
"""For a thread that runs Python code, once another one wants to: an import holds up no steps beside it."""
MIN_SECONDS = 0.001
"""The least that a setting may be: less would be over before it began."""
MAX_SECONDS = 7 * 86400.0
"""The most that a setting may be: timers can count no further."""

# -- The last resort ---------------------------------------------------------------------------------------------------

LAST_RESORT_PATIENCE = 1.2
"""After the deadline, in which the run may still report itself: it knows more."""
LAST_RESORT_FILE_LIMIT = 0.2
"""The console, and the stored result: either may be held for ever."""
LAST_RESORT_KVP_LIMIT = 0.2
"""The host's pool, before the platform is told."""
LAST_RESORT_POST_LIMIT = 5.0
"""All attempts to post NotReady."""
LAST_RESORT_HANDED_OVER_LIMIT = 40.0
"""The same for a run that cannot be loaded: it ends before there is a network. systemd leaves it 90 s, on Fedora 45."""
LAST_RESORT_ATTEMPT_LIMIT = 1.0
"""Each time that an attempt waits for the platform: to connect, or for more of an answer."""
LAST_RESORT_PAUSE = 0.2
"""Between two attempts."""
LAST_RESORT_POLL = 0.01
"""Between two looks whether one of its processes has ended."""
LEFT_BEHIND_LIMIT = 1.0
"""One of its processes that was not waited for any longer: then the kernel ends it."""

# -- Sources -----------------------------------------------------------------------------------------------------------

SOURCE_SHARE = 0.5
"""What a source that does not answer may take of the time that is left: the rest is for applying and for the report."""
MEDIA_LIMIT = 30.0
"""After IMDS' answer, for a drive that does not answer itself; the kernel gives each command as long."""
MEDIA_WAIT_SHARE = 0.9
"""Of the time for the media, how much is waited for a drive to have a disc."""
NOTHING_ASKED_WAIT = 1.0
"""After IMDS' answer, for a drive to turn up on a VM of which IMDS says that nothing was asked for."""
DRIVE_POLL = 0.1
"""Between two looks for a drive that has a disc."""
IMDS_GRACE = 2.0
"""For IMDS, once all else is done and there is a route, where nothing required is lacking without it."""
IMDS_LATE_GRACE = 0.5
"""For IMDS where Ready did not need it and is told: its answer is under way, and the result says how it differs."""
GOAL_STATE_GRACE = 1.0
"""For a goal state that is under way when Ready is due: to ask anew would take no less, and load the platform twice."""
GONE_LIMIT = 70.0
"""While IMDS answers 410: its documentation says to retry for as long."""
IMDSD_LIMIT = 10.0
"""All answers of systemd-imdsd, which may have to fetch them first."""
OFF_AZURE_LIMIT = 0.8
"""IMDS at its own address, in a dry run on a machine whose firmware does not name Azure."""
OFF_AZURE_MEDIA_WAIT = 0.1
"""A drive, in the same dry run."""

# -- Network -----------------------------------------------------------------------------------------------------------

ATTEMPT_LIMIT = 30.0
"""One request with its answer: Microsoft's advice for one call (azure-init#63)."""
CONNECT_LIMIT = 2.0
"""A connection to the platform: both addresses are as near as the host."""
READ_LIMIT = 10.0
"""Until the first of an answer, or more of it, arrives."""
SHORTEST_DELAY = 0.1
"""The least between two attempts, whatever the platform asks for."""
LONGEST_DELAY = 5.0
"""The most between two attempts, where the platform asks for nothing."""
IMDS_LONGEST_WAIT = 30.0
"""What counts of a longer Retry-After of IMDS, which documents a limit of five requests in a second."""
WIRESERVER_LONGEST_WAIT = 60.0
"""What counts of a longer Retry-After of WireServer; waagent asks again after seconds (`utils/restutil.py`)."""
LAST_ATTEMPT = 1.0
"""Before the deadline: the last attempt is made then where its delay would go beyond."""
ROUTE_POLL = 1.0
"""Between two looks for a route where the kernel does not tell of one."""
PROXY_AGENT_WAIT = 120
"""The guest proxy agent, to sign requests: then it gives up itself (proxy_agent/src/provision.rs)."""
PROXY_AGENT_SLACK = 10
"""After that, for its tool to say so."""

# -- The machine -------------------------------------------------------------------------------------------------------

TOOL_LIMIT = 60.0
"""A tool for which nothing else stands here: the slow ones take a second."""
REAP_LIMIT = 0.3
"""A tool that was killed, to be gone: one that waits for a device may take its time."""
RESOLVER_LIMIT = 1
"""One question of a tool to a name server, which may not be reachable yet; whole seconds, asked once."""
LOOK_LIMIT = 10.0
"""A look at files that may be on a file system that does not answer, such as a home directory."""
NAME_SERVICE_LIMIT = 3.0
"""An account in the name services: a directory may be on a network that is not up yet."""
PASSWORD_LOCK_LIMIT = 15.0
"""The lock of the account files, as lckpwdf(3)."""
PASSWORD_LOCK_POLL = 0.05
"""Between two tries to take it."""
DHCP_CLIENT_LIMIT = 10.0
"""A DHCP client, to say yes; under an SELinux policy that keeps its answer from minprov, it never comes."""
PUBLISH_LIMIT = 15.0
"""All of publishing the host name, after Ready."""
EJECT_LIMIT = 5.0
"""Giving the disc back, after Ready."""
CUSTOM_DATA_UNIT_LIMIT = 30.0
"""customData's unit, to start and to end, beside what the program itself may take."""
DUTY_LIMIT = 3600.0
"""The program of a required duty, whose parts have limits of their own; the run's deadline comes first by default."""
HOOKS_POLL = 0.2
"""Between two looks of the hooks' program whether the run that waits for it is still there."""
CHILD_PROCESS_LIMIT = 3600.0
"""A process of the run whose parent was killed: then the kernel ends it. Longer than any run."""

# -- What is told ------------------------------------------------------------------------------------------------------

CHANNEL_LIMIT = 1.5
"""Each of the console, the host's pool and the stored result; a run that is terminated has two seconds in all."""
KVP_LOCK_LIMIT = 1.0
"""The lock of the host's pool, which its daemon takes as well."""
KVP_LOCK_POLL = 0.01
"""Between two tries to take it."""
JOURNAL_LIMIT = 1.5
"""Moving what was done to the manifest at the end; the next run does it if this one cannot."""

# -- Duties ------------------------------------------------------------------------------------------------------------

CERTIFICATES_LIMIT = 120.0
"""WireServer, which has answered the first boot's report already."""
POOL_POLL = 2.0
"""Between two questions to IMDS whether a pooled VM has got its owner; a change of the network ends it."""
DISK_LIMIT = 10.0
"""A disk that the kernel may still be looking for, where the VM is not ready without it."""
DISK_POLL = 0.1
"""Between two looks for it."""
DISK_RUN_LIMIT = 300.0
"""Another run of the same program, to end: the first boot's run may start it beside the boot's own script."""
DNS_LIMIT = 5.0
"""The platform's name server, to know the host name: it may learn a name some time after the client has sent it."""
DNS_PAUSE = 1.0
"""An answer to one question, and then the pause before the next."""
ROLE_PROPERTIES_LIMIT = 5.0
"""WireServer, to take a host key."""
MKFS_LIMIT = 240.0
"""Making a file system on the temporary disk, which may have terabytes."""
UDEV_LIMIT = 10.0
"""udev, to be done with a disk, and another program, to let go of it."""
DISK_LOCK_POLL = 0.05
"""Between two tries to lock a disk."""
MOUNT_LIMIT = 60.0
"""Mounting the temporary disk."""
ZEROS_LIMIT = 120.0
"""Writing the zeros of a swap file where the file system cannot allocate them, or reading one back into memory."""

# -- Images ------------------------------------------------------------------------------------------------------------

BUILD_LIMIT = 900.0
"""A tool that makes initramfs, or the configuration of a boot loader: a minute for each kernel, on a slow machine."""
ESP_LIMIT = 30.0
"""One file or listing of an EFI system partition."""
INITRAMFS_LIMIT = 60.0
"""Reading one initramfs."""
PARTITION_LIMIT = 60.0
"""Mounting one partition of an image."""
GUESTFS_LIMIT = 600.0
"""libguestfs' machine, to start: without KVM its processor is emulated."""
SYSTEM_PROGRAM_LIMIT = 30.0
"""A program of the system that is checked, where that was asked for."""
SIGNATURE_LIMIT = 30.0
"""sbverify, for one program."""
QEMU_IMG_LIMIT = 60.0
"""What qemu-img says of an image."""
PROGRESS_INTERVAL = 0.2
"""Between two lines of progress."""
