// Two nodes share their histories in Redis; 200 clients of one of them come back on the other. Presence and the HTTP
// API cover both nodes.
//
//   CENTRIFUGE_BIN=… node rolling.mjs
//
// Redis is a process of its own. Prints a line for each check and, at the end, how many passed and failed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import {
  builds,
  children,
  client,
  closeClients,
  DEADLINE,
  Proxy,
  Server,
  subscription,
  token,
  until,
  within,
} from './harness.mjs';

const CLIENTS = 200, ROOMS = 20, ROUNDS = 500;

async function redis() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  const child = spawn('redis-server', ['--port', port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
    { stdio: 'ignore', env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` } });
  children.add(child);
  const answers = () => new Promise(ok => {
    const socket = net.connect(port, '127.0.0.1', () => { socket.destroy(); ok(true); }).on('error', () => ok(false));
  });
  const end = Date.now() + DEADLINE;
  while (!await answers()) assert.ok(Date.now() < end, 'redis-server does not answer');
  return { url: `redis://127.0.0.1:${port}`, child };
}

/// 10,000 messages in 20 rooms, published on B; in the middle A ends.
async function rolling(signal, build) {
  const broker = await redis();
  const a = await new Server('--redis', broker.url).start();
  const b = await new Server('--redis', broker.url).start();
  const proxy = await new Proxy(a).start();
  const rooms = Array.from({ length: ROOMS }, (_, n) => `rolling:${n}`);
  const clients = Array.from({ length: CLIENTS }, () => client(build, proxy.url));
  const subs = clients.map((it, n) => subscription(it, build, rooms[n % ROOMS]));
  for (const it of clients) it.connect();
  await within(Promise.all(subs.map(sub => sub.ready())), 'all subscriptions');
  for (let round = 0; round < ROUNDS; round++) {
    if (round === ROUNDS / 2) {
      proxy.target = b.port;
      a.child.kill(signal);
    }
    const answer = await b.api('broadcast', { channels: rooms, data: round });
    assert.ok(answer.result.responses.every(r => r.result.offset === round + 1), JSON.stringify(answer));
    await new Promise(ok => setTimeout(ok, 20));
  }
  await until(() => subs.every(sub => sub.values.length >= ROUNDS), 'all messages');
  for (const sub of subs) {
    assert.deepEqual(sub.values, Array.from({ length: ROUNDS }, (_, n) => n));
    const back = sub.of('subscribed').slice(1);
    assert.ok(back.length >= 1 && back.every(s => s.wasRecovering && s.recovered), JSON.stringify(back));
  }
  closeClients();
  proxy.stop();
  await b.stop();
  broker.child.kill('SIGKILL');
}

/// Ann on A and Bob on B know of each other, also when A is killed.
async function presence(build) {
  const broker = await redis();
  const a = await new Server('--redis', broker.url).start();
  const b = await new Server('--redis', broker.url).start();
  const enter = async (node, sub) => {
    const it = client(build, node.url, { token: token({ sub, info: { of: sub } }) });
    it.connect();
    const subs = ['both', 'nohistory:both'].map(channel => subscription(it, build, channel, { joinLeave: true }));
    await within(Promise.all(subs.map(sub => sub.ready())), `the subscriptions of ${sub}`);
    return subs;
  };
  // One after the other: who subscribes is told of those who come later.
  const ann = await enter(a, 'ann');
  const bob = await enter(b, 'bob');
  for (const [n, channel] of ['both', 'nohistory:both'].entries()) {
    const users = async sub =>
      Object.values((await sub.presence()).clients)
        .map(c => [c.user, build.unpack(c.connInfo).of])
        .sort();
    for (const sub of [ann[n], bob[n]]) {
      const end = Date.now() + DEADLINE;
      while ((await users(sub)).length < 2) assert.ok(Date.now() < end, `presence in ${channel}`);
      assert.deepEqual(await users(sub), [['ann', 'ann'], ['bob', 'bob']]);
      await until(() => new Set(sub.of('join').map(j => j.info.user)).size === 2 || sub === bob[n], 'the joins');
    }
    await a.api('publish', { channel, data: 1 });
    await until(() => ann[n].values.length === 1 && bob[n].values.length === 1, `a publication in ${channel} on both`);
  }
  await b.api('unsubscribe', { user: 'ann', channel: 'both' });
  await until(() => ann[0].state === 'unsubscribed', 'unsubscribed by the other node');
  await until(() => bob[0].of('leave').some(l => l.info.user === 'ann'), 'the leave');
  await a.stop('SIGKILL');
  await until(() => bob[1].of('leave').some(l => l.info.user === 'ann'), 'a killed node takes its subscribers along');
  assert.deepEqual(await b.api('presence_stats', { channel: 'nohistory:both' }), {
    result: { num_clients: 1, num_users: 1 },
  });
  closeClients();
  await b.stop();
  broker.child.kill('SIGKILL');
}

let passed = 0, failed = 0;
const all = [
  ['a drain', () => rolling('SIGTERM', builds.json)], ['kill -9', () => rolling('SIGKILL', builds.protobuf)],
  ['presence, json', () => presence(builds.json)], ['presence, protobuf', () => presence(builds.protobuf)],
];
for (const [name, check] of all) {
  const begin = Date.now();
  try {
    await within(check(), 'end of the check', 8 * DEADLINE);
    console.log(`ok      rolling: ${name} (${Date.now() - begin} ms)`);
    passed++;
  } catch (error) {
    console.log(`FAILED  rolling: ${name}\n${error.stack ?? JSON.stringify(error)}`);
    failed++;
  }
  closeClients();
}
for (const child of children) child.kill('SIGKILL');
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
