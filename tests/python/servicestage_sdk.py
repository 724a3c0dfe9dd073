"""Huawei's own Python SDK at work on ServiceStage, or on what stands for it.

A stand-in is fair when a program written for the real service cannot tell. Reads
from the environment:

    SERVICESTAGE_ENDPOINT   for example http://127.0.0.1:8774
    SERVICESTAGE_PROJECT    the project's id
    SERVICESTAGE_AK, _SK    its access key
    SERVICESTAGE_TEMPORARY  another access key, its secret and its token, by spaces
    SERVICESTAGE_OTHER      the id of a project of others

Prints a line per step; ends with 1 at the first surprise. Cleans up after itself.
"""
import os
import sys
import time
import uuid

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ServiceResponseException
from huaweicloudsdkservicestage.v3 import (
    ApplicationConfigModify, ApplicationConfigModifyConfiguration,
    ApplicationConfigModifyConfigurationEnv, ApplicationCreate, ApplicationModify, ComponentAction,
    ComponentActionParameters, ComponentCreate, ComponentModify, CreateApplicationRequest,
    CreateComponentRequest, CreateEnvironmentRequest, DeleteApplicationConfigurationRequest,
    DeleteApplicationRequest, DeleteComponentRequest, DeleteEnvironmentRequest, EnvironmentCreate,
    EnvironmentModify, EnvironmentResourceModify, Label, ModifyApplicationConfigurationRequest,
    ModifyApplicationRequest, ModifyComponentRequest, ModifyEnvironmentRequest,
    ModifyResourceInEnvironmentRequest, ReferResourceCreate, Resource, RuntimeStack,
    ServiceStageClient, ShowApplicationConfigurationRequest, ShowApplicationInfoRequest,
    ShowApplicationsRequest, ShowComponentInfoRequest, ShowComponentRecordsRequest,
    ShowComponentsInApplicationRequest, ShowComponentsRequest, ShowEnvironmentInfoRequest,
    ShowEnvironmentResourcesRequest, ShowEnvironmentsRequest, ShowJobInfoRequest,
    ShowRuntimeStacksRequest, SourceObject, UpdateComponentActionRequest)

ENDPOINT = os.environ["SERVICESTAGE_ENDPOINT"]
PROJECT = os.environ["SERVICESTAGE_PROJECT"]
KEYS = os.environ["SERVICESTAGE_AK"], os.environ["SERVICESTAGE_SK"]
PATIENCE = 120           # seconds within which a job must be over


def client(keys, project=PROJECT, token=None):
    credentials = BasicCredentials(*keys, project)
    if token:
        credentials = credentials.with_security_token(token)
    builder = ServiceStageClient.new_builder().with_credentials(credentials)
    return builder.with_endpoint(ENDPOINT).build()


def step(text):
    print(f"  {text}", flush=True)


def same(what, got, want):
    if got != want:
        sys.exit(f"{what}: {got!r}, and not {want!r}")


def refused(what, status, call, request):
    try:
        answer = call(request)
    except ServiceResponseException as refusal:
        same(f"{what}: status", refusal.status_code, status)
        if not refusal.request_id:
            sys.exit(f"{what}: no request id")
        return refusal
    sys.exit(f"{what}: not refused, but {answer}")


def finish(api, job_id):
    """Polls a job to its end and gives its last state and all states seen."""
    seen = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = api.show_job_info(ShowJobInfoRequest(job_id=job_id))
        same("job_id", answer.job.job_id, job_id)
        same("task_count", answer.task_count, len(answer.tasks))
        if answer.job.execution_status not in seen:
            seen.append(answer.job.execution_status)
        if answer.job.execution_status in ("SUCCEEDED", "FAILED"):
            return answer, seen
        time.sleep(0.02)
    sys.exit(f"{job_id} is not over after {PATIENCE} s: {seen}")


def environments(api, name):
    made = api.create_environment(CreateEnvironmentRequest(body=EnvironmentCreate(
        name=name, vpc_id="081c539d-ed09-43b0-9d2b-6f7a8c1e2d34", deploy_mode="mixed",
        description="Übung 一", labels=[{"key": "team", "value": "payments"}])))
    same("name", made.name, name)
    same("description", made.description, "Übung 一")
    same("labels", [(label.key, label.value) for label in made.labels], [("team", "payments")])
    same("project_id", made.project_id, PROJECT)
    for what, time_of in (("create_time", made.create_time), ("update_time", made.update_time)):
        # Epoch milliseconds.
        if abs(time_of / 1000 - time.time()) > 3600:
            sys.exit(f"{what}: {time_of}")
    refusal = refused("the same name", 400, api.create_environment,
                      CreateEnvironmentRequest(body=EnvironmentCreate(name=name, vpc_id="v")))
    if "SVCSTG.00100449" not in str(refusal):
        sys.exit(f"the same name: {refusal}")
    step("environment created")

    api.modify_environment(ModifyEnvironmentRequest(
        environment_id=made.id, body=EnvironmentModify(name=name, description="")))
    resources = [Resource(id="5e0a1c7b-3d94-11ee-8f26-0255ac100b0a", type="cce", name="cce-prod")]
    api.modify_resource_in_environment(ModifyResourceInEnvironmentRequest(
        environment_id=made.id, body=EnvironmentResourceModify(resources=resources)))
    shown = api.show_environment_info(ShowEnvironmentInfoRequest(environment_id=made.id))
    same("description", shown.description, "")
    same("resources", [r.name for r in shown.resources], ["cce-prod"])
    own = api.show_environment_resources(ShowEnvironmentResourcesRequest(environment_id=made.id))
    same("resources", [r.id for r in own.resources], [r.id for r in resources])
    step("environment changed and shown")

    listed = api.show_environments(ShowEnvironmentsRequest(name=name))
    same("listed", (listed.count, [e.id for e in listed.environments]), (1, [made.id]))
    page = api.show_environments(ShowEnvironmentsRequest(
        limit=1, offset=0, order_by="create_time", order="desc"))
    same("newest first", [e.id for e in page.environments], [made.id])
    refused("limit", 400, api.show_environments, ShowEnvironmentsRequest(limit=101))
    step("environments listed and paged")
    return made.id


def applications(api, name, environment):
    made = api.create_application(CreateApplicationRequest(body=ApplicationCreate(
        name=name, labels=[Label(key="stage", value="test")])))
    same("name", made.name, name)
    refusal = refused("the same name", 400, api.create_application,
                      CreateApplicationRequest(body=ApplicationCreate(name=name)))
    if "SVCSTG.00100458" not in str(refusal):
        sys.exit(f"the same name: {refusal}")
    changed = api.modify_application(ModifyApplicationRequest(
        application_id=made.id, body=ApplicationModify(description="changed")))
    same("description", changed.description, "changed")
    shown = api.show_application_info(ShowApplicationInfoRequest(application_id=made.id))
    same("shown", (shown.name, shown.description, shown.component_count), (name, "changed", 0))
    listed = api.show_applications(ShowApplicationsRequest(order_by="create_time", order="desc"))
    same("newest first", listed.applications[0].id, made.id)
    same("count", listed.count, len(listed.applications))
    step("application created, changed, shown, listed")

    wanted = ApplicationConfigModify(environment_id=environment, configuration=(
        ApplicationConfigModifyConfiguration(
            env=[ApplicationConfigModifyConfigurationEnv(name="LOG_LEVEL", value="eu west/1")])))
    api.modify_application_configuration(ModifyApplicationConfigurationRequest(
        application_id=made.id, body=wanted))
    shown = api.show_application_configuration(ShowApplicationConfigurationRequest(
        application_id=made.id, environment_id=environment))
    same("configuration", [(e.name, e.value) for e in shown.configuration[0].configuration.env],
         [("LOG_LEVEL", "eu west/1")])
    api.delete_application_configuration(DeleteApplicationConfigurationRequest(
        application_id=made.id, environment_id=environment))
    refused("no configuration", 404, api.show_application_configuration,
            ShowApplicationConfigurationRequest(application_id=made.id, environment_id=environment))
    step("application configured")
    return made.id


def spec(of, name, **more):
    return of(name=name, version="1.0.1", replica=2, limit_cpu=1.5, limit_memory=2.0,
              runtime_stack=RuntimeStack(name="Docker", type="Docker", version="1.0.0",
                                         deploy_mode="container"),
              source=SourceObject(kind="image", url="swr.example.com/acme/svc:1.0.1",
                                  storage="swr", auth="iam"),
              refer_resources=[ReferResourceCreate(
                  id="5e0a1c7b-3d94-11ee-8f26-0255ac100b0a", type="cce",
                  parameters={"namespace": "default"})], **more)


def status(api, application, component):
    shown = api.show_component_info(ShowComponentInfoRequest(
        application_id=application, component_id=component))
    return shown, shown.status.component_status


def components(api, application, environment):
    made = api.create_component(CreateComponentRequest(
        application_id=application,
        body=spec(ComponentCreate, "order-svc", environment_id=environment)))
    if not made.job_id.startswith("JOB"):
        sys.exit(f"job_id: {made.job_id}")
    _, seen = finish(api, made.job_id)
    same("the job's end", seen[-1], "SUCCEEDED")
    shown, state = status(api, application, made.component_id)
    same("component", (shown.name, shown.version, shown.replica, shown.limit_cpu, state),
         ("order-svc", "1.0.1", 2, 1.5, "RUNNING"))
    same("last job", shown.status.last_job_id, made.job_id)
    step(f"component created; its job was {', '.join(seen)}")

    listed = api.show_components_in_application(
        ShowComponentsInApplicationRequest(application_id=application, limit=10))
    same("listed", (listed.count, [c.id for c in listed.components]), (1, [made.component_id]))
    all_of = api.show_components(ShowComponentsRequest(component_name="order-svc"))
    if made.component_id not in [c.id for c in all_of.components]:
        sys.exit("the list of all components lacks it")
    same("count", api.show_application_info(
        ShowApplicationInfoRequest(application_id=application)).component_count, 1)
    step("components listed")

    modified = spec(ComponentModify, "order-svc")
    modified.version = "1.0.2"
    job = api.modify_component(ModifyComponentRequest(
        application_id=application, component_id=made.component_id, body=modified)).job_id
    refused("another change meanwhile", 409, api.modify_component, ModifyComponentRequest(
        application_id=application, component_id=made.component_id, body=modified))
    finish(api, job)
    same("version", status(api, application, made.component_id)[0].version, "1.0.2")
    job = api.update_component_action(UpdateComponentActionRequest(
        application_id=application, component_id=made.component_id,
        body=ComponentAction(action="scale", parameters=ComponentActionParameters(replica=4))))
    finish(api, job.job_id)
    same("replica", status(api, application, made.component_id)[0].status.available_replica, 4)
    records = api.show_component_records(ShowComponentRecordsRequest(
        application_id=application, component_id=made.component_id))
    same("records", [r.version for r in records.records], ["1.0.2", "1.0.1"])
    step("component deployed anew and scaled")

    ill = api.create_component(CreateComponentRequest(
        application_id=application,
        body=spec(ComponentCreate, "to-fail", environment_id=environment)))
    last, seen = finish(api, ill.job_id)
    same("the job's end", seen[-1], "FAILED")
    same("the last task", last.tasks[-1].task_status, "FAILED")
    shown, state = status(api, application, ill.component_id)
    same("failed", (state, shown.status.fail_detail), ("FAILED", "create_failed"))
    step("component failed")

    refused("components in it", 400, api.delete_application,
            DeleteApplicationRequest(application_id=application))
    refused("components in it", 400, api.delete_environment,
            DeleteEnvironmentRequest(environment_id=environment))
    for component in (made.component_id, ill.component_id):
        api.delete_component(DeleteComponentRequest(
            application_id=application, component_id=component))
        # The removal goes on afterwards.
        same("state", status(api, application, component)[1], "DELETING")
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                status(api, application, component)
                time.sleep(0.02)
            except ServiceResponseException as refusal:
                same("gone", refusal.status_code, 401)
                break
        else:
            sys.exit(f"{component} is there still")
    step("components deleted")


def strangers(api, environment):
    ask = ShowEnvironmentInfoRequest(environment_id=environment)
    for what, wrong, status_code in (
            ("a wrong secret", client((KEYS[0], "wrong")), 401),
            ("a wrong key", client(("wrong", KEYS[1])), 401),
            ("a token that is not the key's", client(KEYS, token="x"), 401),
            ("another's project", client(KEYS, os.environ["SERVICESTAGE_OTHER"]), 403)):
        refusal = refused(what, status_code, wrong.show_environment_info, ask)
        if not refusal.error_code.startswith("APIGW."):
            sys.exit(f"{what}: {refusal}")
    *keys, token = os.environ["SERVICESTAGE_TEMPORARY"].split()
    shown = client(keys, token=token).show_environment_info(ask)
    same("with temporary keys", shown.id, environment)
    missing = refused("no such environment", 401, api.show_environment_info,
                      ShowEnvironmentInfoRequest(environment_id="none"))
    if "SVCSTG.00100401" not in str(missing):
        sys.exit(f"no such environment: {missing}")
    refused("no such job", 400, api.show_job_info, ShowJobInfoRequest(job_id="JOBnone"))
    step("strangers refused, temporary keys let in")


def main():
    api = client(KEYS)
    name = f"sdk-{uuid.uuid4().hex[:8]}"
    environment = environments(api, name)
    strangers(api, environment)
    application = applications(api, name, environment)
    components(api, application, environment)
    api.show_runtime_stacks(ShowRuntimeStacksRequest())
    api.delete_application(DeleteApplicationRequest(application_id=application))
    api.delete_environment(DeleteEnvironmentRequest(environment_id=environment))
    refused("deleted", 401, api.show_application_info,
            ShowApplicationInfoRequest(application_id=application))
    refused("deleted", 401, api.show_environment_info,
            ShowEnvironmentInfoRequest(environment_id=environment))
    step("application and environment deleted")


main()
