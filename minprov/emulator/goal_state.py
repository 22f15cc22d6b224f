"""VirtualMachine -> the goal state and the documents it links.

Names, nesting and attribute spellings follow the documents in Azure/WALinuxAgent, tests/data/hibernate/goal_state_1 and
tests/data/wire. A VM here never has extensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from .vm import VirtualMachine

PROTOCOL_VERSIONS = ("2010-12-15", "2011-08-31", "2011-10-15", "2011-12-31", "2012-05-15", "2012-11-30", "2015-04-05")

_GOAL_STATE = """\
<?xml version="1.0" encoding="utf-8"?>
<GoalState xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>2012-11-30</Version>
  <Incarnation>{incarnation}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
    <LBProbePorts>
      <Port>16001</Port>
    </LBProbePorts>
    <ExpectHealthReport>FALSE</ExpectHealthReport>
  </Machine>
  <Container>
    <ContainerId>{container_id}</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>{instance_id}</InstanceId>
        <State>Started</State>
        <Configuration>
{links}
          <ConfigName>{deployment_id}.0.{deployment_id}.0._{name}.1.xml</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>
"""

# Element of the goal state -> the query that fetches the document.
LINKS = {
    "HostingEnvironmentConfig": "comp=config&type=hostingEnvironmentConfig",
    "SharedConfig": "comp=config&type=sharedConfig",
    "ExtensionsConfig": "comp=config&type=extensionsConfig",
    "FullConfig": "comp=config&type=fullConfig",
    "Certificates": "comp=certificates",
}


def build_versions() -> bytes:
    """Return the list of protocol versions, which needs no version header to be read."""
    supported = "".join(f"<Version>{version}</Version>" for version in PROTOCOL_VERSIONS)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f"<Versions><Preferred><Version>{PROTOCOL_VERSIONS[-1]}</Version></Preferred>"
        f"<Supported>{supported}</Supported></Versions>\n"
    ).encode()


def build_goal_state(vm: VirtualMachine, host: str) -> bytes:
    """Return the goal state; `host` is what the guest calls this server, so that the links lead back here."""
    base = f"http://{host}/machine/{quote(vm.container_id, safe='')}/{quote(vm.instance_id, safe='')}"
    links = (
        f"          <{tag}>{escape(f'{base}?{query}&incarnation={vm.incarnation}')}</{tag}>"
        for tag, query in LINKS.items()
    )
    return _GOAL_STATE.format(
        incarnation=vm.incarnation,
        container_id=escape(vm.container_id),
        instance_id=escape(vm.instance_id),
        deployment_id=escape(vm.deployment_id),
        name=escape(vm.name),
        links="\n".join(links),
    ).encode()


def build_hosting_environment_config(vm: VirtualMachine) -> bytes:
    """Return the document waagent takes the names of the VM, its role and its deployment from."""
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <StoredCertificates />
  <Deployment name={quoteattr(vm.deployment_id)} guid="{{{vm.deployment_id}}}" incarnation="0">
    <Service name={quoteattr(vm.deployment_id)} guid="{{{vm.deployment_id}}}" />
    <ServiceInstance name={quoteattr(vm.deployment_id + ".0")} guid="{{{vm.deployment_id}}}" />
  </Deployment>
  <Incarnation number="{vm.incarnation}" instance={quoteattr("_" + vm.name)} guid="{{{vm.container_id}}}" />
  <Role guid="{{{vm.container_id}}}" name={quoteattr("_" + vm.name)} hostingEnvironmentVersion="1" software="" \
softwareType="ApplicationPackage" entryPoint="" parameters="" settleTimeSeconds="10" />
</HostingEnvironmentConfig>
""".encode()


def build_shared_config(vm: VirtualMachine) -> bytes:
    """Return the deployment as its instances share it: one instance, one address."""
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<SharedConfig version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <Deployment name={quoteattr(vm.deployment_id)} guid="{{{vm.deployment_id}}}" incarnation="0" />
  <Incarnation number="{vm.incarnation}" instance={quoteattr("_" + vm.name)} guid="{{{vm.container_id}}}" />
  <Instances>
    <Instance id={quoteattr("_" + vm.name)} address={quoteattr(vm.private_ip_address)}>
      <FaultDomains randomId="0" updateId="0" updateCount="0" />
      <InputEndpoints />
    </Instance>
  </Instances>
</SharedConfig>
""".encode()


def build_extensions_config(vm: VirtualMachine) -> bytes:
    """Return the list of extensions: there are none, no newer agent is offered, and status goes by the HostGAPlugin.

    The blob for the status is nowhere; waagent names it when it hands its status to the HostGAPlugin.
    """
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<Extensions version="1.0.0.0" goalStateIncarnation="{vm.incarnation}">
  <GuestAgentExtension xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
    <GAFamilies />
    <Location>{escape(vm.location)}</Location>
    <ServiceName>CRP</ServiceName>
  </GuestAgentExtension>
  <Plugins />
  <PluginSettings />
  <StatusUploadBlob statusBlobType="BlockBlob">https://storage.invalid/status/{vm.container_id}</StatusUploadBlob>
  <InVMGoalStateMetaData inSvdSeqNo="{vm.incarnation}" createdOnTicks="638000000000000000" \
activityId="{vm.container_id}" correlationId="{vm.deployment_id}" />
</Extensions>
""".encode()


def build_full_config(vm: VirtualMachine) -> bytes:
    """Return the document that nobody is known to read, empty but for its incarnation."""
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<RoleConfiguration version="1.0.0.0" goalStateIncarnation="{vm.incarnation}" />
""".encode()
