// The copied lines: what a shell and Python make of them.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";

const source = process.env.PAGE_SOURCE;
const { address, commands, literal, quote, variable } = await import(pathToFileURL(`${source}/copy.js`));

const ODD = [
  "", " ", "'", "''", "a'b", '"', "\\", "\\'", "$HOME", "$(id)", "`id`", "!!", "*", "~", "# no comment", "a;b", "a&b", "a|b", "<x>", "{a,b}", "[a]",
  "a\nb", "a\tb", "\u0000\u001b", "\u2028\u202e", "é", "😀", "-d", "--help", "@file", "=a", "%s\\n", "\\u0027", "\ud800",
];

/** Returns the arguments that the programs get when a POSIX shell reads the command. */
function argumentsOf(command, env = {}) {
  const define = ["curl", "grpcurl", "drawbridge"].map((name) => `${name}() { printf '%s\\0' ${name} "$@"; }`).join("\n");
  const output = execFileSync("sh", ["-euc", `${define}\n${command}`], { env, input: "", cwd: "/" });
  return output.toString().split("\0").slice(0, -1);
}

const base = { method: "a.v1.Things/Get", kind: "unary", metadata: [], timeout: null, address: "127.0.0.1:50051", hasTls: false };

for (const value of ODD.filter((one) => !one.includes("\0") && !one.includes("\ud800"))) {
  assert.deepEqual(argumentsOf(`curl ${quote(value)}`), ["curl", value]);
}

const messages = [Object.fromEntries(ODD.map((value, index) => [`${index} ${value}`, value]))];
const request = JSON.stringify(messages[0]);
const metadata = [["drawbridge-token", "s3cret"], ["x-note", "it's \"$HOME\" `id` \\"], ["drawbridge-upstream", "o'north $x"], ["1-api-key", "s3cret"]];
const env = { DRAWBRIDGE_TOKEN: "a'b \"c\" $d `e` \\", _1_API_KEY: "k *" };
for (const hasTls of [false, true]) {
  const all = commands({ ...base, messages, metadata, timeout: 1.5, hasTls, address: "[::1]:50051" });
  for (const text of Object.values(all)) assert(!text.includes("s3cret"), text);
  const scheme = hasTls ? "https" : "http";
  assert.deepEqual(argumentsOf(all.grpcurl, env), [
    "grpcurl", ...(hasTls ? ["-cacert", "ca.pem"] : ["-plaintext"]),
    "-H", `drawbridge-token: ${env.DRAWBRIDGE_TOKEN}`, "-H", `x-note: ${metadata[1][1]}`, "-H", `drawbridge-upstream: ${metadata[2][1]}`, "-H", `1-api-key: ${env._1_API_KEY}`,
    "-max-time", "1.5", "-d", request, "[::1]:50051", base.method,
  ]);
  assert.deepEqual(argumentsOf(all.drawbridge, env), [
    "drawbridge", "call", "--gateway", `${scheme}://[::1]:50051`, ...(hasTls ? ["--ca", "ca.pem"] : []),
    "--upstream", metadata[2][1], "--metadata", `x-note=${metadata[1][1]}`, "--metadata", `1-api-key=${env._1_API_KEY}`, "--timeout", "2s", base.method, request,
  ]);
  assert.deepEqual(argumentsOf(all.curl, env), [
    "curl", "-g", ...(hasTls ? ["--cacert", "ca.pem"] : []), "-H", "content-type: application/json", "-H", "connect-protocol-version: 1",
    "-H", `drawbridge-token: ${env.DRAWBRIDGE_TOKEN}`, "-H", `x-note: ${metadata[1][1]}`, "-H", `drawbridge-upstream: ${metadata[2][1]}`, "-H", `1-api-key: ${env._1_API_KEY}`,
    "-H", "connect-timeout-ms: 1500", "--data-binary", request, `${scheme}://[::1]:50051/${base.method}`,
  ]);
}

// The envelopes that curl sends for a stream.
for (const text of ["", "é😀%s\\n'", "x".repeat(188), "x".repeat(240), "x".repeat(70000)]) {
  const { curl } = commands({ ...base, kind: "server_streaming", messages: [{ text }] });
  const script = `curl() { cat; }\n${curl}`;
  const sent = execFileSync("sh", ["-euc", script], { maxBuffer: 1 << 20 });
  const body = Buffer.from(JSON.stringify({ text }));
  assert.equal(sent[0], 0);
  assert.equal(sent.readUInt32BE(1), body.length);
  assert.deepEqual(sent.subarray(5), body);
}

// Python reads the same value, and the program as such.
const value = { texts: ODD.slice(0, -1), nested: [{ yes: true, no: false, none: null, number: 1.5e300, empty: {}, list: [] }] };
const python = (program, input) => execFileSync("python3", ["-c", program], { input }).toString();
const readBack = python("import ast, json, sys; print(json.dumps(ast.literal_eval(sys.stdin.read())))", literal(value));
assert.deepEqual(JSON.parse(readBack), value);
for (const kind of ["unary", "server_streaming", "client_streaming"]) {
  const program = commands({ ...base, kind, messages: [value, value], metadata, timeout: 3 }).python;
  python("import ast, sys; ast.parse(sys.stdin.read())", program);
  assert(!program.includes("s3cret"));
}

assert.equal(variable("x-auth-token"), "OS_TOKEN");
assert.equal(variable("authorization"), "AUTHORIZATION");
assert.equal(variable("x-request-id"), null);
assert.equal(address({ host: "", port: 1 }, "gateway.test"), "gateway.test:1");
assert.equal(address({ host: "[::1]", port: 1 }, "localhost"), "[::1]:1");
console.log("copy.test.mjs: ok");
