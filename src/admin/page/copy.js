// Writes a call as a line for a shell, and as a program. Any value may hold any character.

/** Metadata that `drawbridge call` reads from the environment. */
const VARIABLES = { "drawbridge-token": "DRAWBRIDGE_TOKEN", "x-auth-token": "OS_TOKEN" };
const SECRET = /token|auth|secret|passw|credential|cookie|key|session|signature/;

/** Returns a word that a POSIX shell reads as exactly this text. */
export function quote(value) {
  if (/^[A-Za-z0-9_./:@%+,-]+$/.test(value)) return value;
  return `'${value.replaceAll("'", "'\\''")}'`;
}

/** Returns the variable that holds the value of this metadata; none if it is no secret. */
export function variable(name) {
  if (name in VARIABLES) return VARIABLES[name];
  if (!SECRET.test(name)) return null;
  const word = name.toUpperCase().replace(/[^A-Z0-9]/g, "_");
  return /^[0-9]/.test(word) ? `_${word}` : word;
}

/** Returns `NAME: VALUE` for a shell. Secrets are read from variables. */
function header(name, value, between = ": ") {
  const secret = variable(name);
  // The shell puts the variable between double quotes, where it reads nothing else.
  return secret === null ? quote(`${name}${between}${value}`) : `${quote(`${name}${between}`)}"$${secret}"`;
}

/** Joins words to lines of one command. */
const lines = (groups) => groups.filter((group) => group.length > 0).map((group) => group.join(" ")).join(" \\\n  ");

/** Returns the address of the gateway for clients: its own, or the host of the page. */
export function address(connection, pageHost) {
  return `${connection.host || pageHost}:${connection.port}`;
}

/** Returns the envelope of a text: a zero, and its length in UTF-8, as printf's `%b` reads bytes. */
function envelope(text) {
  const length = new TextEncoder().encode(text).length;
  const bytes = [0, length >>> 24, length >>> 16, length >>> 8, length].map((byte) => byte & 255);
  return bytes.map((byte) => `\\0${byte.toString(8).padStart(3, "0")}`).join("");
}

/**
 * Returns the call for each tool. `call` has `method` (package.Service/Method), `kind`,
 * `messages` (JSON values), `metadata` (names and values), `timeout` (seconds or null),
 * `address` and `hasTls`.
 */
export function commands(call) {
  const compact = call.messages.map((message) => JSON.stringify(message));
  const request = compact.join("\n");
  const scheme = call.hasTls ? "https" : "http";
  return { curl: curl(call, compact, scheme), grpcurl: grpcurl(call, request), drawbridge: drawbridge(call, compact, scheme), python: python(call) };
}

function grpcurl(call, request) {
  return lines([
    ["grpcurl", call.hasTls ? "-cacert ca.pem" : "-plaintext"],
    ...call.metadata.map(([name, value]) => ["-H", header(name, value)]),
    call.timeout === null ? [] : ["-max-time", String(call.timeout)],
    ["-d", quote(request)],
    [quote(call.address), quote(call.method)],
  ]);
}

function drawbridge(call, compact, scheme) {
  const named = call.metadata.filter(([name]) => !(name in VARIABLES));
  const others = named.filter(([name]) => name !== "drawbridge-upstream");
  const upstream = named.find(([name]) => name === "drawbridge-upstream");
  return lines([
    ["drawbridge", "call"],
    ["--gateway", quote(`${scheme}://${call.address}`), ...(call.hasTls ? ["--ca", "ca.pem"] : [])],
    upstream ? ["--upstream", quote(upstream[1])] : [],
    ...others.map(([name, value]) => ["--metadata", header(name, value, "=")]),
    call.timeout === null ? [] : ["--timeout", `${Math.ceil(call.timeout)}s`],
    [quote(call.method), ...compact.map(quote)],
  ]);
}

/** The protocol of Connect: plain JSON, and for streams an envelope around each message. */
function curl(call, compact, scheme) {
  const isUnary = call.kind === "unary";
  const url = `${scheme}://${call.address}/${call.method}`;
  const head = isUnary ? [] : ["printf", quote(compact.map(() => "%b%s").join("")), ...compact.map((text) => `${quote(envelope(text))} ${quote(text)}`), "|"];
  return (head.length > 0 ? `${head.join(" ")}\n` : "") + lines([
    // Brackets of an IPv6 address are no pattern.
    ["curl", ...(url.includes("[") ? ["-g"] : []), ...(isUnary ? [] : ["-sN"]), ...(call.hasTls ? ["--cacert", "ca.pem"] : [])],
    ["-H", quote(`content-type: application/${isUnary ? "json" : "connect+json"}`)],
    ["-H", quote("connect-protocol-version: 1")],
    ...call.metadata.map(([name, value]) => ["-H", header(name, value)]),
    call.timeout === null ? [] : ["-H", quote(`connect-timeout-ms: ${Math.ceil(call.timeout * 1000)}`)],
    isUnary ? ["--data-binary", quote(compact[0])] : ["--data-binary", "@-"],
    [quote(url)],
  ]);
}

/** Returns a value as a literal of Python. */
export function literal(value, indent = "") {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((one) => `${inner}${literal(one, inner)},\n`).join("")}${indent}]`;
  }
  if (typeof value === "object") {
    const members = Object.entries(value);
    if (members.length === 0) return "{}";
    return `{\n${members.map(([name, one]) => `${inner}${JSON.stringify(name)}: ${literal(one, inner)},\n`).join("")}${indent}}`;
  }
  // Strings of JSON are strings of Python.
  return JSON.stringify(value);
}

/** Reflection needs the metadata, too. */
const interceptor = (metadata) => `METADATA = [${metadata.join(", ")}]


class Metadata(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor,
):
    def intercept_unary_unary(self, call, details, request):
        return call(details._replace(metadata=METADATA), request)

    intercept_unary_stream = intercept_stream_unary = intercept_stream_stream = intercept_unary_unary


channel = grpc.intercept_channel(channel, Metadata())
`;

function python(call) {
  const [service, method] = call.method.split("/");
  const metadata = call.metadata.map(([name, value]) => {
    const secret = variable(name);
    return `(${JSON.stringify(name)}, ${secret === null ? JSON.stringify(value) : `os.environ[${JSON.stringify(secret)}]`})`;
  });
  const usesSecrets = call.metadata.some(([name]) => variable(name) !== null);
  const clientStreams = call.kind === "client_streaming";
  const serverStreams = call.kind === "server_streaming";
  const kind = `${clientStreams ? "stream" : "unary"}_${serverStreams ? "stream" : "unary"}`;
  const options = [
    clientStreams ? "iter(requests)" : "requests[0]",
    ...(call.timeout === null ? [] : [`timeout=${call.timeout}`]),
  ].join(", ");
  return `# pip install grpcio grpcio-reflection
${usesSecrets ? "import os\n\n" : ""}import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

${call.hasTls
    ? `with open("ca.pem", "rb") as ca:\n    credentials = grpc.ssl_channel_credentials(ca.read())\nchannel = grpc.secure_channel(${JSON.stringify(call.address)}, credentials)`
    : `channel = grpc.insecure_channel(${JSON.stringify(call.address)})`}
${metadata.length > 0 ? interceptor(metadata) : ""}pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
method = pool.FindServiceByName(${JSON.stringify(service)}).FindMethodByName(${JSON.stringify(method)})
Request = message_factory.GetMessageClass(method.input_type)
Response = message_factory.GetMessageClass(method.output_type)
call = channel.${kind}(${JSON.stringify(`/${call.method}`)}, Request.SerializeToString, Response.FromString)
requests = [json_format.ParseDict(request, Request(), descriptor_pool=pool) for request in ${literal(call.messages)}]
${serverStreams
    ? `for response in call(${options}):\n    print(json_format.MessageToJson(response, descriptor_pool=pool))`
    : `print(json_format.MessageToJson(call(${options}), descriptor_pool=pool))`}
`;
}
