// Calls each API of `drawbridge sandbox`, reads errors, and watches a stack to its end, also over a
// restart of the gateway: npm run example
import { setTimeout } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Outcome, WatchEventType } from "./gen/drawbridge/v1/watch_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { ProductInfoService } from "./gen/hitachi/automation/v1/product_info_pb.js";
import { ApplicationService } from "./gen/huaweicloud/servicestage/v3/application_pb.js";
import { StackService } from "./gen/openstack/orchestration/v1/stack_pb.js";

const stackName = "shop-typescript";
const template = '{"heat_template_version": "2018-08-31", "resources": {"server": {"type": "OS::Heat::TestResource"}}}';
const baseUrl = `http://${process.env.DRAWBRIDGE_ADDR ?? "127.0.0.1:50051"}`;
// Each call has a deadline, in milliseconds; after it, DeadlineExceeded. 0 is none.
const transport = createGrpcTransport({ baseUrl, defaultTimeoutMs: 10_000 });
const stacks = createClient(StackService, transport);

// Prints the code of a failed call, its reason, and the fields that are invalid.
function show(reason: unknown) {
  const error = ConnectError.from(reason);
  console.log("error:", Code[error.code], error.rawMessage);
  for (const info of error.findDetails(ErrorInfoSchema)) console.log("  reason:", info.reason, "sent:", info.metadata.sent);
  for (const bad of error.findDetails(BadRequestSchema))
    for (const violation of bad.fieldViolations) console.log("  field:", violation.field, violation.description);
}

// Prints the states of a stack until one is final.
async function watch(...call: Parameters<typeof stacks.watchStack>) {
  for await (const { event, stack } of stacks.watchStack(...call))
    console.log("watch:", WatchEventType[event!.type], stack?.stackStatusRaw, Outcome[event!.outcome]);
}

console.log("openstack:", (await stacks.listStacks({})).stacks.length, "stacks");
const { applications } = await createClient(ApplicationService, transport).listApplications({});
console.log("servicestage:", applications.length, "applications");
const { version } = await createClient(ProductInfoService, transport).getVersion({});
console.log("jp1ao:", version?.productName, version?.productVersion);

await stacks.getStack({}).catch(show); // neither a name nor an id
await stacks.createStack({ stackName, templateAs: { case: "template", value: template } }).catch(show);
await watch({ stackName, follow: true }, { timeoutMs: 500 }).catch(show); // has no end
const controller = new AbortController();
try {
  for await (const _ of stacks.watchStack({ stackName, follow: true }, { signal: controller.signal })) controller.abort();
} catch (error) {
  console.log("cancelled:", Code[ConnectError.from(error).code]);
}

for (;;) {
  try {
    await watch({ stackName }, { timeoutMs: 0 });
    break; // the stream ends without an error once the state is final
  } catch (error) {
    // A connection that breaks is Canceled for connect-node.
    if (![Code.Unavailable, Code.Canceled].includes(ConnectError.from(error).code)) throw error;
    console.log("watch: lost the gateway; calling again");
    await setTimeout(1000);
  }
}
