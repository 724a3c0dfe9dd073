// connect-node, by each of its protocols and versions of HTTP.
// Usage: node node.mjs GATEWAY DESCRIPTOR_SET

import { readFileSync } from "node:fs";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { check, registryOf } from "./checks.mjs";

const [baseUrl, descriptors] = process.argv.slice(2);
const registry = registryOf(readFileSync(descriptors));
const transports = { grpc: createGrpcTransport({ baseUrl }) };
for (const httpVersion of ["1.1", "2"]) {
  const options = { baseUrl, httpVersion };
  const name = `http${httpVersion[0]}`;
  transports[`connect-json-${name}`] = createConnectTransport({ ...options, useBinaryFormat: false });
  transports[`connect-proto-${name}`] = createConnectTransport(options);
  transports[`grpc-web-${name}`] = createGrpcWebTransport(options);
}
for (const [name, transport] of Object.entries(transports)) {
  console.log(`node ${name}: ${await check(registry, transport, name)} checks`);
}
process.exit(0);
