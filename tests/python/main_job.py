"""The main job on a real Heat: deploy through the gateway, and see every change.

See README.md for what it needs. It cleans up after itself.
"""
import os
import queue
import sys
import tempfile
import threading
import uuid
from datetime import datetime, timezone
from pathlib import Path

import grpc
import grpc_tools
import openstack.orchestration.v1 as sdk
from google.protobuf import json_format, struct_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc
from heatclient.client import Client as HeatClient
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

PROTO = Path(__file__).resolve().parents[2] / "proto"
PATIENCE = 120           # seconds within which a change must have come


class Different(Exception):
    """What was seen is not what should be seen."""


# The stubs --------------------------------------------------------------------

stubs = tempfile.TemporaryDirectory()
sources = [str(f.relative_to(PROTO)) for package in ("drawbridge", "openstack")
           for f in sorted((PROTO / package).rglob("*.proto"))]
if protoc.main(["protoc", f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
                f"--python_out={stubs.name}", f"--grpc_python_out={stubs.name}", *sources]):
    sys.exit("the protos do not compile")
sys.path.insert(0, stubs.name)
# openstacksdk has a package of the same name: Python shall look in both.
sdk.__path__.append(f"{stubs.name}/openstack/orchestration/v1")

from drawbridge.v1 import options_pb2, watch_pb2  # noqa: E402
from openstack.orchestration.v1 import (  # noqa: E402
    software_config_pb2 as config_pb2, software_config_pb2_grpc as config_grpc,
    software_deployment_pb2 as deployment_pb2, software_deployment_pb2_grpc as deployment_grpc)


# Comparing --------------------------------------------------------------------

def instant(text):
    """A time of Heat's: without a zone it is UTC."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def equal_json(rest, grpc_side):
    """Whether two JSON values are equal: 5 is 5.0, but 1 is not true."""
    if isinstance(rest, dict):
        return (isinstance(grpc_side, dict) and rest.keys() == grpc_side.keys()
                and all(equal_json(rest[k], grpc_side[k]) for k in rest))
    if isinstance(rest, list):
        return (isinstance(grpc_side, list) and len(rest) == len(grpc_side)
                and all(map(equal_json, rest, grpc_side)))
    if isinstance(rest, bool) or isinstance(grpc_side, bool):
        return rest is grpc_side
    return rest == grpc_side and isinstance(rest, str) == isinstance(grpc_side, str)


def plain(value):
    """A google.protobuf.Value as Python's own JSON."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {name: plain(member) for name, member in value.struct_value.fields.items()}
    if kind == "list_value":
        return [plain(element) for element in value.list_value.values]
    return None if kind == "null_value" else getattr(value, kind)


def rest_text(value):
    """The REST text of an enum value."""
    named = value.GetOptions().Extensions[options_pb2.enum_value].name
    zero = value.type.values_by_number[0].name
    return named or value.name.removeprefix(zero.removesuffix("UNSPECIFIED"))


def compare(rest, message, where):
    """Fails unless the message says what the REST object says, no more and no less."""
    def differ(field, problem):
        raise Different(f"{where}.{field}: {problem}")

    fields = message.DESCRIPTOR.fields_by_name
    for name in rest:
        if name not in fields:
            differ(name, "Heat sends it, the message has no place for it")
    for name, field in fields.items():
        rules = field.GetOptions().Extensions[options_pb2.field]
        if rules.raw_of or rules.gateway_only:
            continue                         # compared with the field whose text it keeps; the gateway's own
        theirs, ours = rest.get(name), getattr(message, name)
        if field.is_repeated:
            if len(theirs or []) != len(ours):
                differ(name, f"{len(theirs or [])} by REST, {len(ours)} by gRPC")
            for i, (one, other) in enumerate(zip(theirs or [], ours)):
                compare(one, other, f"{where}.{name}[{i}]")
        elif field.enum_type:
            raw = getattr(message, f"{name}_raw") if message.HasField(f"{name}_raw") else None
            if raw != theirs:
                differ(name, f"{theirs!r} by REST, {raw!r} by gRPC")
            known = {rest_text(value): number for number, value in field.enum_type.values_by_number.items() if number}
            if ours != known.get(theirs, 0):
                differ(name, f"{theirs!r} by REST, {field.enum_type.values_by_number[ours].name} by gRPC")
        elif field.message_type and field.message_type.full_name == "google.protobuf.Value":
            if message.HasField(name) != (name in rest):
                differ(name, "there by REST, absent by gRPC" if name in rest else "absent by REST, there by gRPC")
            if name in rest and not equal_json(theirs, plain(ours)):
                differ(name, f"{theirs!r} by REST, {plain(ours)!r} by gRPC")
        elif field.message_type and field.message_type.full_name == "google.protobuf.Timestamp":
            if message.HasField(name) != (theirs is not None):
                differ(name, f"{theirs!r} by REST, {'there' if theirs is None else 'unset'} by gRPC")
            if theirs is not None and ours.ToDatetime(timezone.utc) != instant(theirs):
                differ(name, f"{theirs!r} by REST, {ours.ToJsonString()} by gRPC")
        elif field.message_type:
            if message.HasField(name) != (theirs is not None):
                differ(name, f"{theirs!r} by REST, {'there' if theirs is None else 'unset'} by gRPC")
            if theirs is not None:
                compare(theirs, ours, f"{where}.{name}")
        else:
            if field.has_presence and not message.HasField(name):
                ours = None
            elif theirs is None and not field.has_presence:
                theirs = field.default_value
            if not equal_json(theirs, ours):
                differ(name, f"{theirs!r} by REST, {ours!r} by gRPC")


def check(true, problem):
    if not true:
        raise Different(problem)


# Heat itself ------------------------------------------------------------------

ENDPOINT = os.environ["REAL_HEAT_ENDPOINT"].rstrip("/")
session = Session(v3.Password(
    auth_url=os.environ["OS_AUTH_URL"], username=os.environ["OS_USERNAME"], password=os.environ["OS_PASSWORD"],
    user_domain_name=os.environ["OS_USER_DOMAIN_NAME"], project_name=os.environ["OS_PROJECT_NAME"],
    project_domain_name=os.environ["OS_PROJECT_DOMAIN_NAME"]))
heat = HeatClient("1", session=session, endpoint=ENDPOINT)


def rest(path):
    """What Heat itself answers."""
    return session.get(ENDPOINT + path, headers={"Accept": "application/json"}).json()


# The gateway ------------------------------------------------------------------

channel = grpc.insecure_channel(os.environ["DRAWBRIDGE_ADDR"], [("grpc.enable_http_proxy", 0)])
configs = config_grpc.SoftwareConfigServiceStub(channel)
deployments = deployment_grpc.SoftwareDeploymentServiceStub(channel)
METADATA = [("drawbridge-upstream", os.environ["DRAWBRIDGE_UPSTREAM"])] if os.environ.get("DRAWBRIDGE_UPSTREAM") else []
if os.environ.get("DRAWBRIDGE_PASSTHROUGH"):
    METADATA.append(("x-auth-token", session.get_token()))


def ask(rpc, request):
    return rpc(request, timeout=PATIENCE, metadata=METADATA)


def read(rpc, request, path):
    """Reads by gRPC and by REST; both must agree. Retries while Heat changes meanwhile."""
    for _ in range(10):
        before, answer, after = rest(path), ask(rpc, request), rest(path)
        if before == after:
            compare(before, answer, rpc_name(answer))
            return answer
    raise Different(f"{path} never stands still")


def rpc_name(answer):
    return answer.DESCRIPTOR.name.removesuffix("Response")


def refused(rpc, request, code, reason, path=None, method="GET"):
    """The rpc must end in this code; its details must say what Heat says."""
    try:
        answer = ask(rpc, request)
    except grpc.RpcError as error:
        check(error.code() == code, f"{error.code().name} ({error.details()}) instead of {code.name}")
        packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        check(packed, f"{code.name} comes without details")
        info = error_details_pb2.ErrorInfo()
        check(any(detail.Unpack(info) for detail in status_pb2.Status.FromString(packed).details),
              f"{code.name} comes without ErrorInfo")
        check(info.reason == reason, f"reason {info.reason} instead of {reason}")
        if path:
            body = session.request(ENDPOINT + path, method, raise_exc=False).json()
            check(body["error"]["type"] == reason, f"Heat says {body['error']['type']} instead of {reason}")
            check(body["error"]["message"] in error.details(),
                  f"message {error.details()!r} without Heat's {body['error']['message']!r}")
        return
    raise Different(f"{rpc_name(answer)} ended well instead of in {code.name}")


class Watch:
    """A stream read in a thread of its own."""

    def __init__(self, rpc, request):
        self.stream = rpc(request, timeout=4 * PATIENCE, metadata=METADATA)
        self.messages = queue.SimpleQueue()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            for message in self.stream:
                self.messages.put(message)
            self.messages.put(grpc.StatusCode.OK)
        except grpc.RpcError as error:
            self.messages.put(error.code())

    def next(self):
        """The next message, or the code in which the stream ended."""
        try:
            return self.messages.get(timeout=PATIENCE)
        except queue.Empty:
            raise Different(f"nothing came within {PATIENCE} s, not even a bookmark") from None

    def until(self, kind, deployment_id, status=None):
        """The next message of this kind about this deployment, and with this status if one is given.
        States in between may show; what is not about this deployment passes by."""
        wanted = f"{kind} of {deployment_id}{f' with {status}' if status else ''}"
        for _ in range(1000):
            message = self.next()
            check(not isinstance(message, grpc.StatusCode), f"the stream ended in {message} before {wanted}")
            item = message.software_deployment
            if (message.event.type == watch_pb2.WatchEventType.Value(f"WATCH_EVENT_TYPE_{kind}")
                    and item.id == deployment_id and status in (None, item.status_raw)):
                check(message.event.HasField("observed_at"), f"{wanted} does not say when it was read")
                return message
        raise Different(f"{wanted} did not come")

    def bookmark(self):
        """The next message must be a bookmark."""
        message = self.next()
        check(not isinstance(message, grpc.StatusCode)
              and message.event.type == watch_pb2.WATCH_EVENT_TYPE_BOOKMARK, f"{message} instead of a bookmark")

    def ended(self):
        """Nothing but bookmarks may come before the stream ends with OK."""
        while not isinstance(message := self.next(), grpc.StatusCode):
            check(message.event.type == watch_pb2.WATCH_EVENT_TYPE_BOOKMARK, f"{message} after the end")
        check(message == grpc.StatusCode.OK, f"the stream ended in {message}")


# The job ----------------------------------------------------------------------

def step(text):
    print(f"ok  {text}", flush=True)


def value(json):
    """Python's JSON as a google.protobuf.Value."""
    return json_format.ParseDict(json, struct_pb2.Value())


ANYTHING = {"i": 7, "f": 1.5, "b": True, "n": None, "s": "text \u00e9\u4e16\U0001f309\n", "empty": "", "zero": 0,
            "l": [1, "two", None, {"x": False}, []], "o": {"deep": {"er": [1]}}, "big": 2**60, "small": -1e-7}
OUTPUTS = {"deploy_stdout": "Writing\n", "deploy_stderr": "", "deploy_status_code": 0, "result": "installed", **ANYTHING}


def job(server, made):
    one = ask(configs.CreateSoftwareConfig, config_pb2.CreateSoftwareConfigRequest(
        name="install-nginx", group="script", config=value("#!/bin/sh\necho \"$port\"\n"),
        inputs=[
            dict(name="port", type="SOFTWARE_CONFIG_IO_TYPE_NUMBER", default=value(80), description="listen port"),
            dict(name="tls", type_raw="Boolean", default=value(False)),
            dict(name="opts", type="SOFTWARE_CONFIG_IO_TYPE_JSON", default=value({"a": [1, 2], "n": None})),
            dict(name="names", type="SOFTWARE_CONFIG_IO_TYPE_COMMA_DELIMITED_LIST", default=value("a,b")),
            dict(name="again", replace_on_change=True),
            dict(name="never", replace_on_change=False, description=""),
            dict(name="plain")],
        outputs=[dict(name="result", description="what was done"), dict(name="err", error_output=True)],
        options=value({"a": 1, "nested": {"b": [True, None]}}))).software_config
    made.append(f"/software_configs/{one.id}")
    compare(rest(f"/software_configs/{one.id}")["software_config"], one, "CreateSoftwareConfig")
    read(configs.GetSoftwareConfig, config_pb2.GetSoftwareConfigRequest(config_id=one.id), f"/software_configs/{one.id}")
    step(f"created config {one.id}")

    two, bare = (ask(configs.CreateSoftwareConfig, request).software_config for request in (
        config_pb2.CreateSoftwareConfigRequest(name="", config=value(ANYTHING)), config_pb2.CreateSoftwareConfigRequest()))
    for config in (two, bare):
        made.append(f"/software_configs/{config.id}")
        read(configs.GetSoftwareConfig, config_pb2.GetSoftwareConfigRequest(config_id=config.id), f"/software_configs/{config.id}")
    listed = read(configs.ListSoftwareConfigs, config_pb2.ListSoftwareConfigsRequest(page_size=2), "/software_configs?limit=2")
    read(configs.ListSoftwareConfigs, config_pb2.ListSoftwareConfigsRequest(
        page_token=listed.software_configs[0].id, page_size=1), f"/software_configs?marker={listed.software_configs[0].id}&limit=1")
    read(configs.ListSoftwareConfigs, config_pb2.ListSoftwareConfigsRequest(page_size=0), "/software_configs?limit=0")
    step(f"created config {two.id} with an empty name, {bare.id} with nothing at all; listed configs")

    def get(id):
        return read(deployments.GetSoftwareDeployment, deployment_pb2.GetSoftwareDeploymentRequest(deployment_id=id),
                    f"/software_deployments/{id}").software_deployment

    first = ask(deployments.CreateSoftwareDeployment, deployment_pb2.CreateSoftwareDeploymentRequest(
        config_id=one.id, server_id=server, input_values=value(ANYTHING), action="DEPLOYMENT_ACTION_CREATE")).software_deployment
    made.insert(0, f"/software_deployments/{first.id}")
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"], first, "CreateSoftwareDeployment")
    check(not first.HasField("status_raw") and not first.HasField("updated_time"), "a new deployment has a status or update")
    get(first.id)
    step(f"created deployment {first.id} on server {server}; status and updated_time unset as in Heat")

    watch = Watch(deployments.WatchSoftwareDeployment,
                  deployment_pb2.WatchSoftwareDeploymentRequest(deployment_id=first.id))
    everything = Watch(deployments.WatchSoftwareDeployments,
                       deployment_pb2.WatchSoftwareDeploymentsRequest(server_id=server))
    present = watch.until("INITIAL", first.id)
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"], present.software_deployment, "watch")
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"],
            everything.until("INITIAL", first.id).software_deployment, "watch of the server")
    everything.bookmark()
    step("watching it, and its server: the present state came first")

    heat.software_deployments.update(first.id, status="IN_PROGRESS", status_reason="Deploy data available")
    changed = watch.until("MODIFIED", first.id, "IN_PROGRESS")
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"], changed.software_deployment, "watch")
    check(changed.event.outcome == watch_pb2.OUTCOME_UNSPECIFIED, "IN_PROGRESS is told as an end")
    everything.until("MODIFIED", first.id, "IN_PROGRESS")
    step("heatclient set IN_PROGRESS, straight to Heat: both watches told it")

    heat.software_deployments.update(first.id, status="COMPLETE", status_reason="Outputs received", output_values=OUTPUTS)
    changed = watch.until("MODIFIED", first.id, "COMPLETE")
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"], changed.software_deployment, "watch")
    check(changed.event.outcome == watch_pb2.OUTCOME_SUCCEEDED, "COMPLETE is not told as a good end")
    watch.ended()
    get(first.id)
    changed = everything.until("MODIFIED", first.id, "COMPLETE")
    compare(rest(f"/software_deployments/{first.id}")["software_deployment"], changed.software_deployment, "watch of the server")
    check(changed.event.outcome == watch_pb2.OUTCOME_SUCCEEDED, "COMPLETE is not told as a good end of the item")
    step("heatclient set COMPLETE with outputs: both watches told them; the first ended with OK")

    second = heat.software_deployments.create(config_id=two.id, server_id=server, action="ODD", status="WHATEVER",
                                              input_values=["a", 1, None])
    made.insert(0, f"/software_deployments/{second.id}")
    added = everything.until("ADDED", second.id)
    compare(rest(f"/software_deployments/{second.id}")["software_deployment"], added.software_deployment, "watch of the server")
    get(second.id)
    step("heatclient created a second one, with odd texts and values: the server's watch told it")

    by_server = read(deployments.ListSoftwareDeployments, deployment_pb2.ListSoftwareDeploymentsRequest(server_id=server),
                     f"/software_deployments?server_id={server}")
    check({d.id for d in by_server.software_deployments} == {first.id, second.id}, "the server has other deployments")
    read(deployments.ListSoftwareDeployments, deployment_pb2.ListSoftwareDeploymentsRequest(server_id="nowhere"),
         "/software_deployments?server_id=nowhere")
    read(deployments.ListSoftwareDeployments, deployment_pb2.ListSoftwareDeploymentsRequest(), "/software_deployments")
    read(deployments.ListServerDeploymentMetadata, deployment_pb2.ListServerDeploymentMetadataRequest(server_id=server),
         f"/software_deployments/metadata/{server}")
    step("listed by server, all, and the server's metadata")

    updated = ask(deployments.UpdateSoftwareDeployment, deployment_pb2.UpdateSoftwareDeploymentRequest(
        deployment_id=second.id, config_id=one.id, action="DEPLOYMENT_ACTION_UPDATE", status="DEPLOYMENT_STATUS_FAILED",
        status_reason="deploy_status_code : 1", output_values=value({"deploy_status_code": "1"}),
        input_values=value({"again": ANYTHING}))).software_deployment
    now = rest(f"/software_deployments/{second.id}")["software_deployment"]
    check(now["status"] == "FAILED" and now["output_values"] == {"deploy_status_code": "1"}
          and now["input_values"] == {"again": ANYTHING} and now["config_id"] == one.id, f"Heat has {now}")
    compare({**now, "config_id": two.id}, updated, "UpdateSoftwareDeployment")      # Heat answers the old config
    check(get(second.id).config_id == one.id, "the new config_id does not show")
    ask(deployments.UpdateSoftwareDeployment, deployment_pb2.UpdateSoftwareDeploymentRequest(
        deployment_id=second.id, status_raw="IN_PROGRESS"))
    check(get(second.id).status == deployment_pb2.DEPLOYMENT_STATUS_IN_PROGRESS, "status_raw was not sent")
    everything.until("MODIFIED", second.id, "IN_PROGRESS")
    step("updated the second one through the gateway, to FAILED and back to IN_PROGRESS")

    code = grpc.StatusCode
    refused(configs.DeleteSoftwareConfig, config_pb2.DeleteSoftwareConfigRequest(config_id=one.id),
            code.FAILED_PRECONDITION, "InvalidRestrictedAction", f"/software_configs/{one.id}", "DELETE")
    gone = deployment_pb2.DeleteSoftwareDeploymentRequest(deployment_id=first.id)
    ask(deployments.DeleteSoftwareDeployment, gone)
    made.remove(f"/software_deployments/{first.id}")
    path = f"/software_deployments/{first.id}"
    refused(deployments.GetSoftwareDeployment, deployment_pb2.GetSoftwareDeploymentRequest(deployment_id=first.id),
            code.NOT_FOUND, "NotFound", path)
    refused(deployments.DeleteSoftwareDeployment, gone, code.NOT_FOUND, "NotFound", path, "DELETE")
    ended = Watch(deployments.WatchSoftwareDeployment,
                  deployment_pb2.WatchSoftwareDeploymentRequest(deployment_id=first.id)).next()
    check(ended == code.NOT_FOUND, f"watching what is gone gives {ended}")
    everything.until("DELETED", first.id)
    heat.software_deployments.delete(second.id)
    made.remove(f"/software_deployments/{second.id}")
    everything.until("DELETED", second.id)
    everything.stream.cancel()
    step("deleted both: NOT_FOUND now, and the server's watch told the removals")

    for id in (one.id, two.id, bare.id):
        ask(configs.DeleteSoftwareConfig, config_pb2.DeleteSoftwareConfigRequest(config_id=id))
        made.remove(f"/software_configs/{id}")
        refused(configs.GetSoftwareConfig, config_pb2.GetSoftwareConfigRequest(config_id=id),
                code.NOT_FOUND, "NotFound", f"/software_configs/{id}")
    step("deleted the configs: NOT_FOUND now")


def main():
    made = []                                # paths of what is there still, deployments first
    try:
        job(str(uuid.uuid4()), made)
    except Different as problem:
        print(f"DIFFERENT  {problem}", flush=True)
        return 1
    except grpc.RpcError as error:
        print(f"FAILED  {error.code().name}: {error.details()}", flush=True)
        return 1
    finally:
        for path in made:
            session.delete(ENDPOINT + path, raise_exc=False)
    print("the main job is done: every read was equal to Heat's own")
    return 0


if __name__ == "__main__":
    sys.exit(main())
