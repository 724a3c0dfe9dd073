// The page: connect-web by both of its protocols, and grpc-web.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import grpcWeb from "grpc-web";
import { check, registryOf } from "./checks.mjs";

/** Calls by the library grpc-web: a unary call, its error, and a watch to its end. */
async function checkGrpcWeb(registry, baseUrl, format) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const service = registry.getService("openstack.orchestration.v1.StackService");
  const describe = (name, type) => {
    const method = service.methods.find((method) => method.name === name);
    return new grpcWeb.MethodDescriptor(
      `/${service.typeName}/${name}`,
      type,
      Object,
      Object,
      (request) => toBinary(method.input, create(method.input, request)),
      (bytes) => fromBinary(method.output, bytes),
    );
  };
  const call = (name, request) => {
    const method = describe(name, grpcWeb.MethodType.UNARY);
    return client.unaryCall(`${baseUrl}${method.name}`, request, {}, method);
  };
  const stackName = `shop-grpc-web-${format}`;
  const template = {
    heat_template_version: "2018-08-31",
    resources: { one: { type: "OS::Heat::TestResource" } },
  };
  await call("CreateStack", { stackName, templateAs: { case: "templateJson", value: template } });
  const found = await call("GetStack", { stackName });
  if (found.stack.stackName !== stackName) throw new Error(`found ${found.stack.stackName}`);
  const failed = await call("GetStack", { stackName: "none" }).then(
    () => new Error("expected an error"),
    (error) => error,
  );
  if (failed.code !== grpcWeb.StatusCode.NOT_FOUND) throw failed;
  if (!failed.metadata["grpc-status-details-bin"]) throw new Error("no details");
  const watch = describe("WatchStack", grpcWeb.MethodType.SERVER_STREAMING);
  const messages = await new Promise((resolve, reject) => {
    const messages = [];
    const stream = client.serverStreaming(`${baseUrl}${watch.name}`, { stackName }, {}, watch);
    stream.on("data", (message) => messages.push(message));
    stream.on("error", reject);
    stream.on("end", () => resolve(messages));
  });
  if (messages.at(-1).stack.stackStatusRaw !== "CREATE_COMPLETE") throw new Error("no end");
  return 4;
}

/** Returns a line per client. */
globalThis.run = async (baseUrl) => {
  const response = await fetch("/contract.binpb");
  const registry = registryOf(new Uint8Array(await response.arrayBuffer()));
  const lines = [];
  const transports = {
    "connect-json": createConnectTransport({ baseUrl }),
    "connect-proto": createConnectTransport({ baseUrl, useBinaryFormat: true }),
    "connect-get": createConnectTransport({ baseUrl, useHttpGet: true }),
    "grpc-web": createGrpcWebTransport({ baseUrl }),
  };
  for (const [name, transport] of Object.entries(transports)) {
    lines.push(`chromium ${name}: ${await check(registry, transport, `web-${name}`)} checks`);
  }
  // As text, grpc-web reads streams message by message; in binary form only unary calls.
  lines.push(`chromium grpc-web text: ${await checkGrpcWeb(registry, baseUrl, "text")} checks`);
  return lines;
};
