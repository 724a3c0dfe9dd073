"""Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
restart of the gateway."""
import os, sys, time

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "gen"))
from drawbridge.v1.watch_pb2 import Outcome, WatchEventType
from hitachi.automation.v1 import product_info_pb2 as jp1ao, product_info_pb2_grpc as jp1ao_grpc
from huaweicloud.servicestage.v3 import application_pb2 as stage, application_pb2_grpc as stage_grpc
from openstack.orchestration.v1 import stack_pb2 as heat, stack_pb2_grpc as heat_grpc

NAME = "shop-python"
TEMPLATE = '{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}'
channel = grpc.insecure_channel(os.environ.get("DRAWBRIDGE_ADDR", "127.0.0.1:50051"))
stacks = heat_grpc.StackServiceStub(channel)


def attempt(call):
    """Makes a call, and prints the code of its error, the reason, and the fields that are invalid."""
    try:
        call()
    except grpc.RpcError as error:
        print("error:", error.code().name, error.details())
        for detail in getattr(rpc_status.from_call(error), "details", []):
            info, bad = ErrorInfo(), BadRequest()
            if detail.Unpack(info):
                print("  reason:", info.reason, "sent:", info.metadata["sent"])
            elif detail.Unpack(bad):
                for violation in bad.field_violations:
                    print("  field:", violation.field, violation.description)


# Each call has a deadline, in seconds; after it, DEADLINE_EXCEEDED.
print("openstack:", len(stacks.ListStacks(heat.ListStacksRequest(), timeout=10).stacks), "stacks")
applications = stage_grpc.ApplicationServiceStub(channel).ListApplications(stage.ListApplicationsRequest(), timeout=10)
print("servicestage:", len(applications.applications), "applications")
version = jp1ao_grpc.ProductInfoServiceStub(channel).GetVersion(jp1ao.GetVersionRequest(), timeout=10).version
print("jp1ao:", version.product_name, version.product_version)

attempt(lambda: stacks.GetStack(heat.GetStackRequest(), timeout=10))  # neither a name nor an id
attempt(lambda: stacks.CreateStack(heat.CreateStackRequest(stack_name=NAME, template=TEMPLATE), timeout=10))
follow = heat.WatchStackRequest(stack_name=NAME, follow=True)  # has no end
attempt(lambda: list(stacks.WatchStack(follow, timeout=0.5)))
stream = stacks.WatchStack(follow)
next(stream)
stream.cancel()
print("cancelled:", stream.code().name)

while True:
    try:
        for message in stacks.WatchStack(heat.WatchStackRequest(stack_name=NAME)):  # no deadline
            event = message.event
            print("watch:", WatchEventType.Name(event.type), message.stack.stack_status_raw, Outcome.Name(event.outcome))
        break  # the stream ends with OK once the state is final
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAVAILABLE:
            raise
        print("watch: lost the gateway; calling again")
        time.sleep(1)
