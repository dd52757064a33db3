// What every check needs: the example as a process, a proxy that cuts, tokens, clients, deadlines.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import readline from 'node:readline';
import WebSocket from 'ws';
import { Centrifuge as Json } from 'centrifuge';
import { Centrifuge as Protobuf } from 'centrifuge/build/protobuf';

// Milliseconds for one wait: far more than a slow machine needs.
export const DEADLINE = 60_000;

export const children = new Set();

/// The example, run as a program; its port stays the same over a restart.
export class Server {
  constructor(...args) {
    this.args = args;
    this.port = 0;
  }

  async start() {
    const child = spawn(process.env.CENTRIFUGE_BIN, ['--addr', `127.0.0.1:${this.port}`, ...this.args],
      { stdio: ['ignore', 'pipe', 'inherit'] });
    this.child = child;
    children.add(child);
    const [line] = await within(once(readline.createInterface(child.stdout), 'line'), 'the line of the example');
    this.port = Number(line.match(/^listening on 127\.0\.0\.1:(\d+)$/)[1]);
    return this;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/connection/websocket`;
  }

  /// Ends it with this signal; its exit status.
  async stop(signal = 'SIGTERM') {
    const end = once(this.child, 'exit');
    this.child.kill(signal);
    const [status] = await within(end, 'the end of the example');
    children.delete(this.child);
    return status;
  }

  /// A method of the HTTP API: its answer.
  async api(method, body, headers = { 'X-API-Key': 'test-api-key' }) {
    const response = await fetch(`http://127.0.0.1:${this.port}/api/${method}`,
      { method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(DEADLINE) });
    return response.status === 200 ? response.json() : response.status;
  }
}

/// Passes bytes on until it is told to cut.
export class Proxy {
  constructor(server) {
    this.sockets = new Set();
    this.isOpen = true;
    this.target = server.port;
    this.listener = net.createServer(near => {
      if (!this.isOpen) return near.destroy();
      const far = net.connect(this.target, '127.0.0.1');
      for (const [from, to] of [[near, far], [far, near]]) {
        this.sockets.add(from);
        from.on('data', bytes => to.write(bytes)).on('error', () => {}).on('close', () => {
          this.sockets.delete(from);
          to.destroy();
        });
      }
    });
  }

  async start() {
    this.listener.listen(0, '127.0.0.1');
    await once(this.listener, 'listening');
    this.url = `ws://127.0.0.1:${this.listener.address().port}/connection/websocket`;
    return this;
  }

  /// Ends every connection without a word.
  cut() {
    for (const socket of this.sockets) socket.destroy();
  }

  stop() {
    this.listener.close();
    this.cut();
  }
}

/// Waits for a promise, but not for ever.
export function within(promise, what, time = DEADLINE) {
  let timer;
  const late = new Promise((_, fail) => { timer = setTimeout(() => fail(new Error(`no ${what} in time`)), time); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/// Waits until something is so.
export async function until(isSo, what) {
  const end = Date.now() + DEADLINE;
  while (!isSo()) {
    assert.ok(Date.now() < end, `never: ${what}`);
    await new Promise(ok => setTimeout(ok, 5));
  }
}

const part = value => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/// A token with these claims; `age` is the seconds that it has left.
export function token(claims, age = 600, secret = 'secret') {
  const exp = Math.floor(Date.now() / 1000) + age;
  const text = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ exp, ...claims })}`;
  return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
}

/// The SDK in both builds. Data are objects in JSON and bytes in protobuf.
export const builds = {
  json: { Centrifuge: Json, pack: value => value, unpack: data => data },
  protobuf: {
    Centrifuge: Protobuf,
    pack: value => new TextEncoder().encode(JSON.stringify(value)),
    unpack: data => JSON.parse(new TextDecoder().decode(data)),
  },
};

const clients = new Set();

/// A client that is closed when the check ends. It keeps what it was told.
export function client(build, url, options = {}) {
  const it = new build.Centrifuge(url,
    { websocket: WebSocket, minReconnectDelay: 5, maxReconnectDelay: 200, timeout: DEADLINE, ...options });
  it.told = [];
  for (const event of [
    'connected',
    'disconnected',
    'subscribed',
    'unsubscribed',
    'publication',
    'join',
    'leave',
    'message',
    'error',
  ]) {
    it.on(event, context => it.told.push([event, context]));
  }
  it.of = event => it.told.filter(([name]) => name === event).map(([, context]) => context);
  clients.add(it);
  return it;
}

/// A subscription that keeps what it was told.
export function subscription(it, build, channel, options = {}) {
  const sub = it.newSubscription(channel, { minResubscribeDelay: 5, maxResubscribeDelay: 200, ...options });
  sub.told = [];
  sub.values = [];
  sub.on('publication', context => {
    sub.values.push(build.unpack(context.data));
    sub.told.push(['publication', context]);
  });
  for (const event of ['subscribing', 'subscribed', 'unsubscribed', 'join', 'leave', 'error']) {
    sub.on(event, context => sub.told.push([event, context]));
  }
  sub.of = event => sub.told.filter(([name]) => name === event).map(([, context]) => context);
  sub.subscribe();
  return sub;
}

export function closeClients() {
  for (const it of clients) it.disconnect();
  clients.clear();
}

/// The code of the error that a promise fails with.
export async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error.code;
  }
  assert.fail('no error');
}
