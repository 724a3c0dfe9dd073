// What each client does with the sandbox: a unary call per family, a watch to its end, the
// details of errors, a deadline, and a cancelled stream.

import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";

/** Returns the types of an encoded descriptor set. */
export function registryOf(bytes) {
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, bytes));
}

function assert(condition, text) {
  if (!condition) throw new Error(text);
}

async function rejected(promise) {
  try {
    await promise;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("expected an error");
}

/** Calls through a transport of Connect. Returns how many checks have passed. */
export async function check(registry, transport, name) {
  const client = (service) => createClient(registry.getService(service), transport);
  const stacks = client("openstack.orchestration.v1.StackService");
  let passed = 0;

  // A unary call of each family.
  const build = await client("openstack.orchestration.v1.MetaService").getBuildInfo({});
  assert(build.$typeName.endsWith("GetBuildInfoResponse"), "heat");
  const environments = client("huaweicloud.servicestage.v3.EnvironmentService");
  assert((await environments.listEnvironments({})).environments.length > 0, "servicestage");
  const version = await client("hitachi.automation.v1.ProductInfoService").getVersion({});
  assert(version.$typeName.startsWith("hitachi."), "jp1ao");
  passed += 3;

  // A watch from its start to its end.
  const stackName = `shop-${name}`;
  const template = {
    heat_template_version: "2018-08-31",
    resources: { one: { type: "OS::Heat::TestResource" } },
  };
  await stacks.createStack({ stackName, templateAs: { case: "templateJson", value: template } });
  const types = [];
  let last;
  for await (const message of stacks.watchStack({ stackName })) {
    last = message;
    types.push(message.event.type);
  }
  assert(types.length > 1 && last.stack.stackStatusRaw === "CREATE_COMPLETE", `watch: ${types}`);
  passed += 1;

  // The details of errors: the reason, and the fields.
  const missing = await rejected(stacks.getStack({ stackName: "none" }));
  assert(missing.code === Code.NotFound, `${missing}`);
  const types_ = missing.details.map((detail) => detail.type ?? detail.desc?.typeName);
  assert(types_.includes("google.rpc.ErrorInfo"), `details: ${types_}`);
  const invalid = await rejected(stacks.getStack({}));
  assert(invalid.code === Code.InvalidArgument, `${invalid}`);
  assert(invalid.details.some((detail) => detail.type === "google.rpc.BadRequest"), "fields");
  passed += 2;

  // A deadline of a stream that has no end, and the end of one that is cancelled.
  const deployments = client("openstack.orchestration.v1.SoftwareDeploymentService");
  const read = async (options) => {
    for await (const _ of deployments.watchSoftwareDeployments({}, options));
  };
  const late = await rejected(read({ timeoutMs: 500 }));
  assert(late.code === Code.DeadlineExceeded, `${late}`);
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 200);
  const cancelled = await rejected(read({ signal: abort.signal }));
  assert(cancelled.code === Code.Canceled, `${cancelled}`);
  passed += 2;
  return passed;
}
