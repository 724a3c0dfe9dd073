"""Calls each API of `drawbridge sandbox`, reads an error, and watches a stack to its end, also
over a restart of the gateway: python example.py [STACK_NAME]"""
import os, sys, time
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

sys.path.insert(0, str(Path(__file__).with_name("gen")))
from drawbridge.v1.watch_pb2 import OUTCOME_SUCCEEDED, WatchEventType
from hitachi.automation.v1 import product_info_pb2 as jp1ao, product_info_pb2_grpc as jp1ao_grpc
from huaweicloud.servicestage.v3 import application_pb2 as stage, application_pb2_grpc as stage_grpc
from openstack.orchestration.v1 import stack_pb2 as heat, stack_pb2_grpc as heat_grpc

TEMPLATE = '{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}'
name = sys.argv[1] if len(sys.argv) > 1 else "shop-python"
channel = grpc.insecure_channel(os.environ.get("DRAWBRIDGE_ADDR", "127.0.0.1:50051"))
stacks = heat_grpc.StackServiceStub(channel)


def show(error):
    """Prints the code of a failed call, its reason, and the fields that are invalid."""
    print("error:", error.code().name, error.details())
    for detail in rpc_status.from_call(error).details if rpc_status.from_call(error) else []:
        info, bad = ErrorInfo(), BadRequest()
        if detail.Unpack(info):
            print("  reason:", info.reason, "sent:", info.metadata["sent"])
        if detail.Unpack(bad):
            for violation in bad.field_violations:
                print("  field:", violation.field, violation.description)


def attempt(call, request, **options):
    try:
        return call(request, **options)
    except grpc.RpcError as error:
        show(error)


# Each call has a deadline, in seconds; after it, DEADLINE_EXCEEDED.
print("openstack:", len(stacks.ListStacks(heat.ListStacksRequest(), timeout=10).stacks), "stacks")
applications = stage_grpc.ApplicationServiceStub(channel).ListApplications(stage.ListApplicationsRequest(), timeout=10)
print("servicestage:", len(applications.applications), "applications")
version = jp1ao_grpc.ProductInfoServiceStub(channel).GetVersion(jp1ao.GetVersionRequest(), timeout=10).version
print("jp1ao:", version.product_name, version.product_version)

attempt(stacks.GetStack, heat.GetStackRequest(), timeout=10)  # neither a name nor an id
attempt(stacks.CreateStack, heat.CreateStackRequest(stack_name=name, template=TEMPLATE), timeout=10)  # fails if it exists

follow = heat.WatchStackRequest(stack_name=name, follow=True)  # has no end
attempt(lambda request, **options: list(stacks.WatchStack(request, **options)), follow, timeout=0.5)
stream = stacks.WatchStack(follow)
next(stream)
stream.cancel()
print("cancelled:", stream.code().name)

while True:
    try:
        for message in stacks.WatchStack(heat.WatchStackRequest(stack_name=name)):
            print("watch:", WatchEventType.Name(message.event.type), message.stack.stack_status_raw, flush=True)
        break  # the stream ends with OK once the state is final
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        print("watch: lost the gateway; calling again", flush=True)
        time.sleep(1)
sys.exit(message.event.outcome != OUTCOME_SUCCEEDED)
