"""The main job with JP1/AO: submit a service, follow its task, answer its question, read its log.

Speaks to the gateway with stubs generated from proto/, and compares what it reads with
what JP1/AO itself answers by REST. See README.md for what it needs.
"""
import base64
import json
import os
import sys
import tempfile
import urllib.parse
import urllib.request
import uuid
from datetime import datetime
from pathlib import Path

import grpc
import grpc_tools
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
PATIENCE = 120           # seconds within which anything must have come to pass


class Different(Exception):
    """What was seen is not what should be seen."""


# The stubs --------------------------------------------------------------------

stubs = tempfile.TemporaryDirectory()
sources = [str(f.relative_to(PROTO)) for package in ("drawbridge", "hitachi")
           for f in sorted((PROTO / package).rglob("*.proto"))]
if protoc.main(["protoc", f"-I{PROTO}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
                f"--python_out={stubs.name}", f"--grpc_python_out={stubs.name}", *sources]):
    sys.exit("the protos do not compile")
sys.path.insert(0, stubs.name)

from drawbridge.v1 import options_pb2  # noqa: E402
from hitachi.automation.v1 import (  # noqa: E402
    action_pb2, product_info_pb2, product_info_pb2_grpc, service_pb2, service_pb2_grpc,
    task_history_pb2, task_history_pb2_grpc, task_pb2, task_pb2_grpc, task_status_pb2)

channel = grpc.insecure_channel(os.environ["DRAWBRIDGE_ADDR"])
services = service_pb2_grpc.AutomationServiceStub(channel)
tasks = task_pb2_grpc.TaskServiceStub(channel)
histories = task_history_pb2_grpc.TaskHistoryServiceStub(channel)
product = product_info_pb2_grpc.ProductInfoServiceStub(channel)
METADATA = [("accept-language", "ja")]


# Both sides -------------------------------------------------------------------

def ask(rpc, request):
    return rpc(request, timeout=PATIENCE, metadata=METADATA)


def rest(path):
    """What JP1/AO answers itself."""
    login = f"{os.environ.get('JP1AO_USERNAME', 'system')}:{os.environ.get('JP1AO_PASSWORD', 'manager')}"
    request = urllib.request.Request(f"{os.environ['JP1AO_URL']}/Automation/v1/objects/{path}", headers={
        "Authorization": "Basic " + base64.b64encode(login.encode()).decode(), "Accept": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def check(condition, problem):
    if not condition:
        raise Different(problem)


def rest_name(field):
    """A field's REST name: its own, or the JSON name."""
    return field.GetOptions().Extensions[options_pb2.field].name or field.json_name


def compare(theirs, message, where):
    """Fails unless the message says what the REST object says, member by member."""
    names = {rest_name(field): field for field in message.DESCRIPTOR.fields
             if not field.GetOptions().Extensions[options_pb2.field].raw_of}
    for name in theirs:
        check(name in names, f"{where}.{name}: JP1/AO sends it, the message has no place for it")
    for name, field in names.items():
        value, ours = theirs.get(name), getattr(message, field.name)
        if field.is_repeated:
            equal = [part.strip() for part in (value or "").split(",") if part.strip()] == list(ours)
        elif field.enum_type:
            raw = f"{field.name}_raw"
            equal = (getattr(message, raw) if message.HasField(raw) else None) == value and bool(ours) == bool(value)
        elif field.message_type and field.message_type.full_name == "google.protobuf.Timestamp":
            there = message.HasField(field.name)
            equal = there == bool(value) and (
                not there or ours.ToMilliseconds() == round(datetime.fromisoformat(value).timestamp() * 1000))
        else:
            equal = (ours if not field.has_presence or message.HasField(field.name) else None) == value
        check(equal, f"{where}.{field.name}: {value!r} by REST, {ours!r} by gRPC")


def refused(rpc, request, code, reason):
    """The rpc must end in this code, for JP1/AO's own reason."""
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
        return error
    raise Different(f"{answer.DESCRIPTOR.name} ended well instead of in {code.name}")


def step(text):
    print(f"ok  {text}", flush=True)


# The job ----------------------------------------------------------------------

def job():
    version = ask(product.GetVersion, product_info_pb2.GetVersionRequest())
    step(f"connected: {' '.join(str(version).split())}")

    ready = [service for service in ask(services.ListServices, service_pb2.ListServicesRequest(
        hql_filter=service_pb2.ServiceFilter(service_state_in=["release"]), hql_sort_by=["instance_id"])).data]
    check(ready, "no service is released")
    service = ready[0]
    compare(rest(f"Services/{service.instance_id}"), service, "ListServices")
    step(f"found the released service {service.instance_id} {service.name!r}")

    name = f"夜の仕事 {uuid.uuid4()} it's /../ 100%"
    submit = service_pb2.SubmitServiceRequest(id=service.instance_id, name=name)
    submit.properties["disk.sizeGB"].number_value = 64
    submitted = ask(services.SubmitService, submit).action_result
    check(submitted.state == action_pb2.ACTION_STATE_SUCCESS, f"the submit says {submitted.state_raw}")
    found = ask(tasks.ListTasks, task_pb2.ListTasksRequest(hql_filter=task_pb2.TaskFilter(name=name))).data
    check(len(found) == 1, f"{len(found)} tasks have the name")
    task = found[0].instance_id
    step(f"submitted it as {name!r}: task {task}")

    # Both streams run from here to the task's end; the log is read behind the watch.
    log = tasks.WatchTaskLog(task_pb2.WatchTaskLogRequest(task_id=task), timeout=PATIENCE, metadata=METADATA)
    told, answered, last = [], False, None
    for now in tasks.WatchTask(task_pb2.WatchTaskRequest(id=task), timeout=PATIENCE, metadata=METADATA):
        if not now.HasField("task"):
            continue
        last = now.task
        if told[-1:] != [last.status_raw]:
            told.append(last.status_raw)
        if last.status == task_status_pb2.TASK_STATUS_WAITING_FOR_INPUT and not answered:
            compare(rest(f"Tasks/{task}"), last, "WatchTask")
            check("Continue" in str(now.respond_action.parameters), f"the question is {now.respond_action}")
            ask(tasks.RespondTask, task_pb2.RespondTaskRequest(id=task, labels={"labelbutton1": "true"}))
            answered = True
            step(f"it asked, and was answered while the watch went on; so far {' '.join(told)}")
    check(answered and told[-1] == "completed", f"it went {' '.join(told)}")
    compare(rest(f"Tasks/{task}"), last, "WatchTask")
    step("watched it to its good end")

    lines = [part.line.text for part in log if part.HasField("line")]
    whole = rest(f"TaskLogs?taskID={task}")["data"][0]["taskLog"]
    check(whole.splitlines() == lines, f"the log came as {lines!r}")
    check("The response was Continue." in whole, f"the log does not tell the answer: {whole!r}")
    step(f"its log of {len(lines)} lines was streamed, each line once")

    code = grpc.StatusCode
    error = refused(tasks.RespondTask, task_pb2.RespondTaskRequest(id=task), code.FAILED_PRECONDITION, "KNAE02103-E")
    check("許可" in error.details(), f"not in Japanese: {error.details()}")
    ask(tasks.ArchiveTask, task_pb2.ArchiveTaskRequest(id=task))
    refused(tasks.GetTask, task_pb2.GetTaskRequest(id=task), code.NOT_FOUND, "KNAE02102-E")
    kept = ask(histories.ListTaskHistories, task_history_pb2.ListTaskHistoriesRequest(
        hql_filter=task_history_pb2.TaskHistoryFilter(task_id_in=[task]))).data
    check(len(kept) == 1 and kept[0].name == name, f"the history is {kept}")
    query = urllib.parse.quote(f"taskID = {task}")
    compare(rest(f"TaskHistories?HQL::filter={query}")["data"][0], kept[0], "ListTaskHistories")
    ask(histories.DeleteTaskHistory, task_history_pb2.DeleteTaskHistoryRequest(id=kept[0].instance_id))
    check(rest(f"TaskHistories?HQL::filter={query}")["count"] == 0, "the history is still there")
    step("archived it, found it in the histories, and deleted it there")


def main():
    try:
        job()
    except Different as problem:
        print(f"DIFFERENT  {problem}", flush=True)
        return 1
    except grpc.RpcError as error:
        print(f"FAILED  {error.code().name}: {error.details()}", flush=True)
        return 1
    print("the main job is done: every read was equal to JP1/AO's own")
    return 0


if __name__ == "__main__":
    sys.exit(main())
