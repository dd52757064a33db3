// The example `centrifuge` as the official SDK for JavaScript sees it, in both of its builds.
//
//   CENTRIFUGE_BIN=target/release/examples/centrifuge node run.mjs [NAME…]
//
// Prints a line for each check and, at the end, how many passed and failed. tests/sdk.sh prepares everything.

import { builds, children, closeClients, DEADLINE, Server, within } from './harness.mjs';
import * as suites from './checks.mjs';

const wanted = process.argv.slice(2);
const server = await new Server().start();
let passed = 0, failed = 0;
for (const [name, check] of Object.entries(suites)) {
  if (wanted.length && !wanted.includes(name)) continue;
  for (const [kind, build] of Object.entries(builds)) {
    const begin = Date.now();
    try {
      await within(check(server, build, `${name}_${kind}`), 'end of the check', 4 * DEADLINE);
      console.log(`ok      ${kind}: ${name} (${Date.now() - begin} ms)`);
      passed++;
    } catch (error) {
      console.log(`FAILED  ${kind}: ${name}\n${error.stack ?? JSON.stringify(error)}`);
      failed++;
    }
    closeClients();
  }
}
await server.stop();
for (const child of children) child.kill('SIGKILL');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
