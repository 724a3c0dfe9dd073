// Loads each proto by itself with @grpc/proto-loader, and prints a line per rpc: its path, and
// whether request and response are streams.
const fs = require('fs');
const loader = require('@grpc/proto-loader');

const [directory] = process.argv.slice(2);
const files = fs.readdirSync(directory, { recursive: true })
  .filter((file) => file.endsWith('.proto') && !file.startsWith('google'));
const rpcs = new Set();
for (const file of files) {
  const loaded = loader.loadSync(file, { includeDirs: [directory] });
  for (const service of Object.values(loaded)) {
    for (const rpc of Object.values(service)) {
      if (rpc && rpc.path) rpcs.add(`${rpc.path} ${rpc.requestStream} ${rpc.responseStream}`);
    }
  }
}
console.log([...rpcs].sort().join('\n'));
