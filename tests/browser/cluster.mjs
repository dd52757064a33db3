// Drives the dashboard of a node of the `cluster` example in a real browser: two nodes on a Redis of their own, and
// users with connections to both.
//
//   npm ci
//   CLUSTER_BIN=../../target/release/examples/cluster node cluster.mjs
//
// CLUSTER_BIN  a node, built with the feature `redis`
// harness.mjs tells the other variables. Needs redis-server.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { connect, createServer } from 'node:net';
import { DESKTOP, Server, picture, run, unexpected, until, visit as visitPath, within } from './harness.mjs';
import { Socket } from './socket.mjs';

const { CLUSTER_BIN } = process.env;
if (!CLUSTER_BIN) {
  console.error('CLUSTER_BIN must name a node of a cluster');
  process.exit(2);
}

/// A port that was free just now.
const port = await new Promise(ok => {
  const listener = createServer();
  listener.listen(0, '127.0.0.1', () => { const { port } = listener.address(); listener.close(() => ok(port)); });
});
const redis = spawn('redis-server', ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], { stdio: 'ignore' });
process.on('exit', () => redis.kill('SIGKILL'));
await until('redis listens', () => new Promise(ok => {
  const probe = connect(port, '127.0.0.1', () => { probe.destroy(); ok(true); });
  probe.on('error', () => ok(false));
}));

const node = name => new Server(CLUSTER_BIN, ['--node', name, '--redis', `redis://127.0.0.1:${port}`, '--presence', '500', '--admin-password', 'secret']);
const [near, far] = [node('near'), node('far')];

const requests = path => /^\/admin\/(events|actions)(\?|$)/.test(path) || path === '/admin/';
const $ = (page, id) => page.getByTestId(id);
async function visit() {
  const page = await visitPath(near, '/admin', 'the dashboard', { options: { ...DESKTOP, httpCredentials: { username: 'admin', password: 'secret' } }, requests });
  await until('the dashboard is live', async () => await $(page, 'link').getAttribute('data-state') === 'live');
  return page;
}
const user = (server, name) => within(Socket.open(server.port, `/ws?user=${name}`), `${name} connects`);

const checks = {
  async 'both nodes are shown'() {
    await far.start();
    const page = await visit();
    await until('two nodes', async () => await $(page, 'nodes').getByText('far').count() === 1);
    assert.equal(await page.locator('#title').textContent(), 'cluster');
    await until('the bus', async () => (await page.locator('#adapter').textContent()).includes('connected'));
  },

  async 'a user is closed everywhere, and nobody else'() {
    const page = await visit();
    const anns = [await user(near, 'ann'), await user(near, 'ann'), await user(far, 'ann')];
    const others = [await user(near, 'bob'), await user(far, 'bob')];
    const nobody = await within(Socket.open(near.port, '/ws'), 'a client without a user');
    await until('all of this node are listed', async () => await $(page, 'client').count() === 4);
    // Who has no user cannot be closed as one.
    await $(page, 'client').filter({ hasText: 'no user' }).getByRole('button').click();
    await $(page, 'client-dialog').waitFor();
    assert.equal(await $(page, 'close-user').isVisible(), false);
    await page.keyboard.press('Escape');
    await $(page, 'client').filter({ hasText: 'ann' }).first().getByRole('button').click();
    assert.equal(await $(page, 'close-user').isVisible(), true);
    await $(page, 'close-code').fill('1005');
    await $(page, 'close-user').click();
    await until('a code that may not be sent is refused', async () => /1005 is not a close code/.test(await $(page, 'client-result').textContent()));
    await $(page, 'close-code').fill('4500');
    await $(page, 'close-reason').fill('banned <b>');
    await picture(page, 'dash-close-user');
    await $(page, 'close-user').click();
    for (const ann of anns) assert.deepEqual(await within(ann.ended, 'ann is closed'), [4500, 'banned <b>']);
    await until('it is told', async () => (await $(page, 'notices').textContent()).includes('Closing ann everywhere.'));
    await until('she is out of the list', async () => await $(page, 'client').count() === 2);
    // The others are still there, and hear each other.
    others[0].send('hello');
    for (const other of [...others, nobody]) await until('the others hear', async () => other.received.includes('hello'));
    for (const socket of [...others, nobody]) socket.close();
    for (let n = unexpected.length - 1; n >= 0; n--) if (/status of 422/.test(unexpected[n])) unexpected.splice(n, 1);
  },

  async 'a user that is only on another node is closed by a request'() {
    const ann = await user(far, 'ann');
    await until('it is known', async () => (await (await fetch(`${near.url}/presence`)).json()).clients === 1);
    const answer = await fetch(`${near.url}/admin/actions`, {
      method: 'POST', body: JSON.stringify({ action: 'close_user', user: 'ann', code: 4000 }),
      headers: { 'Content-Type': 'application/json', 'X-Wshub-Dashboard': '1', authorization: `Basic ${btoa('admin:secret')}` },
    });
    assert.equal(answer.status, 200);
    assert.deepEqual(await answer.json(), { done: 'closed user "ann" with 4000 ""', here: 0, published: true });
    assert.deepEqual(await within(ann.ended, 'ann is closed'), [4000, '']);
    assert.equal(await far.stop(), 0, 'the other node ends cleanly');
  },

  async 'the console stayed clean and the page asked for nothing else'() {
    assert.deepEqual(unexpected, []);
  },
};

await run(near, checks);
