// The rooms of the example `binary_rooms` as a client of the `ws` package for Node.js sees them.
//
//   node binary_rooms.mjs ws://127.0.0.1:PORT/ws
//
// Prints a line for each check and, if none failed, `node: all is well`.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

const URL = process.argv[2];
const DEADLINE = 15_000;

const encode = (room, event, dst = '', src = '', payload = '') => Buffer.concat(
  [room, event, dst, src, payload].flatMap(field => {
    const bytes = Buffer.from(field), length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return [length, bytes];
  }));

function decode(bytes) {
  const fields = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 4 + bytes.readUInt32BE(at);
    fields.push(bytes.subarray(at + 4, end));
    at = end;
  }
  assert.equal(fields.length, 5);
  const [room, event, dst, src] = fields.map(field => field.toString());
  return { room, event, dst, src, payload: fields[4] };
}

/// A client with a queue of what has come, without the comings and goings in `root`.
async function connect(options) {
  const socket = new WebSocket(`${URL}?token=node`, options);
  const queue = [], waiting = [];
  const end = once(socket, 'close').then(([code, reason]) => ({ code, reason: reason.toString() }));
  socket.on('message', (data, isBinary) => {
    assert.ok(isBinary);
    const message = decode(data);
    if (message.room === 'root' && /^(new_member|member_left)$/.test(message.event)) return;
    if (waiting.length) waiting.shift()(message); else queue.push(message);
  });
  const read = () => queue.length ? queue.shift() : new Promise(ok => waiting.push(ok));
  const peer = { socket, end, read, send: (...fields) => socket.send(encode(...fields)) };
  await once(socket, 'open');
  const first = await read();
  assert.deepEqual([first.room, first.event], ['root', 'join_ack']);
  peer.id = first.src;
  return peer;
}

/// Nothing else has come: the next message is the echo.
async function silent(peer) {
  peer.send('', 'echo', '', '', '?');
  assert.deepEqual(await peer.read(), {
    room: 'root',
    event: 'echo',
    dst: peer.id,
    src: peer.id,
    payload: Buffer.from('?'),
  });
}

async function join(peer, room) {
  peer.send(room, 'join');
  const answer = await peer.read();
  assert.deepEqual([answer.room, answer.event, answer.src], [room, 'join_ack', peer.id]);
  return JSON.parse(answer.payload).sort();
}

const checks = {
  async 'without a token: 401'() {
    const socket = new WebSocket(URL);
    const [error] = await once(socket, 'error');
    assert.match(error.message, /401/);
  },

  async 'two clients talk'() {
    const ann = await connect(), bob = await connect();
    assert.deepEqual(await join(ann, 'node'), [ann.id]);
    assert.deepEqual(await join(bob, 'node'), [ann.id, bob.id].sort());
    assert.deepEqual(await ann.read(), {
      room: 'node',
      event: 'new_member',
      dst: '',
      src: '',
      payload: Buffer.from(bob.id),
    });
    ann.send('node', 'chat', '', bob.id, 'hé');
    assert.deepEqual(await bob.read(), {
      room: 'node',
      event: 'chat',
      dst: '',
      src: ann.id,
      payload: Buffer.from('hé'),
    });
    bob.socket.terminate();
    assert.deepEqual(await ann.read(), {
      room: 'node',
      event: 'member_left',
      dst: '',
      src: '',
      payload: Buffer.from(bob.id),
    });
    await silent(ann);
  },

  async 'compression is offered and not chosen'() {
    const peer = await connect({ perMessageDeflate: true });
    assert.equal(peer.socket.extensions, '');
    await silent(peer);
  },

  async 'fragments and pings'() {
    const peer = await connect();
    const wire = encode('', 'echo', '', '', 'in pieces');
    for (let at = 0; at < wire.length; at++) {
      peer.socket.send(wire.subarray(at, at + 1), { fin: at === wire.length - 1 });
      if (at % 8 === 0) peer.socket.ping(`${at}`);
    }
    const [pong] = await once(peer.socket, 'pong');
    assert.equal(pong.toString(), '0');
    assert.equal((await peer.read()).payload.toString(), 'in pieces');
  },

  async 'text and malformed frames end the connection'() {
    for (const [message, code, reason] of [
      ['text', 1003, 'binary messages only'],
      [Buffer.alloc(0), 1002, 'frame ends inside room'],
      [Buffer.alloc(21), 1002, '1 bytes after the payload'],
      [Buffer.alloc(65_537), 1009, ''],
    ]) {
      const peer = await connect();
      peer.socket.send(message);
      const end = await peer.end;
      assert.equal(end.code, code);
      if (reason) assert.equal(end.reason, reason);
    }
  },

  async 'many clients at once'() {
    const peers = await Promise.all(Array.from({ length: 20 }, () => connect()));
    peers.forEach(peer => peer.send('crowd', 'join'));
    for (const peer of peers) {
      // Whatever the order of the joins, what each is told adds up to everybody.
      const members = new Set();
      while (members.size < peers.length) {
        const { event, payload } = await peer.read();
        if (event === 'join_ack') JSON.parse(payload).forEach(id => members.add(id));
        else members.add(payload.toString());
      }
      assert.deepEqual([...members].sort(), peers.map(p => p.id).sort());
    }
    peers[0].send('crowd', 'chat');
    for (const peer of peers.slice(1)) {
      let message;
      // News may repeat what the answer to the join has told.
      do message = await peer.read(); while (message.event === 'new_member');
      assert.deepEqual([message.event, message.src], ['chat', peers[0].id]);
    }
  },
};

const guard = setTimeout(() => { console.log('node: not in time'); process.exit(1); }, DEADLINE);
let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`node: ${name}`);
  } catch (error) {
    failed++;
    console.log(`node: FAILED ${name}\n${error.stack}`);
  }
}
clearTimeout(guard);
if (!failed) console.log('node: all is well');
process.exit(failed ? 1 : 0);
