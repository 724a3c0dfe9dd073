// Makes a call by way of the admin listener, which sends it to the gRPC listener.

/** Calls, and tells `handlers` of each line. Returns when the call has ended. */
export async function call(request, signal, onLine) {
  const response = await fetch("/api/call", {
    method: "POST",
    headers: { "content-type": "application/json", "x-drawbridge-page": "1" },
    body: JSON.stringify(request),
    signal,
  });
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.error ?? `HTTP ${response.status}`);
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let hasEnded = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const read = JSON.parse(line);
      hasEnded ||= read.status !== undefined;
      onLine(read);
    }
  }
  if (!hasEnded) throw new Error("the gateway has closed the connection");
}
