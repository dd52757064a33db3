// One function for each check: the server, the build of the SDK, and a name for channels of its own.

import assert from 'node:assert/strict';
import { client, failure, Proxy, Server, subscription, token, until, within } from './harness.mjs';

export async function identities(server, build) {
  const anonymous = client(build, server.url);
  anonymous.connect();
  await anonymous.ready();
  const ann = client(build, server.url, { token: token({ sub: 'ann', info: { name: 'Ann' } }) });
  const sub = subscription(ann, build, 'identities');
  ann.connect();
  await sub.ready();
  const { clients } = await sub.presence();
  const [own] = Object.values(clients);
  assert.equal(own.user, 'ann');
  assert.equal(own.client, ann.of('connected')[0].client);
  assert.deepEqual(build.unpack(own.connInfo), { name: 'Ann' });
  assert.deepEqual(await server.api('presence_stats', { channel: 'identities' }),
    { result: { num_clients: 1, num_users: 1 } });
}

export async function expired_and_forged_tokens(server, build) {
  let fetched = 0;
  const getToken = async () => { fetched++; return token({ sub: 'ann' }); };
  const old = client(build, server.url, { token: token({ sub: 'ann' }, -5), getToken });
  old.connect();
  await old.ready();
  assert.equal(fetched, 1, 'error 109 makes the SDK fetch a token');
  assert.deepEqual(old.of('error').map(e => e.error.code), [109]);
  for (const forged of [token({ sub: 'ann' }, 60, 'guess'), 'no token', 'a.b.c']) {
    const it = client(build, server.url, { token: forged });
    it.connect();
    await until(() => it.state === 'disconnected', 'a forged token ends it');
    assert.equal(it.of('disconnected')[0].code, 3500);
  }
}

export async function tokens_are_refreshed_in_place(server, build, name) {
  let own = 0, ofSub = 0;
  const it = client(build, server.url, {
    token: token({ sub: 'ann' }, 1), getToken: async () => { own++; return token({ sub: 'ann' }, 600); },
  });
  const channel = `private:${name}`;
  const sub = subscription(it, build, channel, {
    token: token({ sub: 'ann', channel }, 1),
    getToken: async () => {
      ofSub++;
      return token({ sub: 'ann', channel }, 600);
    },
  });
  it.connect();
  await sub.ready();
  await until(() => own === 1 && ofSub === 1, 'both tokens are refreshed');
  await it.rpc('echo', build.pack(1));
  await sub.presence();
  assert.equal(it.of('connected').length, 1, 'on the same connection');
  assert.equal(sub.of('subscribed').length, 1);
}

export async function private_channels(server, build, name) {
  const it = client(build, server.url, { token: token({ sub: 'ann' }) });
  it.connect();
  const channel = `private:${name}`;
  const without = subscription(it, build, `${channel}:without`);
  await until(() => without.state === 'unsubscribed', 'refused');
  assert.deepEqual(without.of('unsubscribed').map(c => c.code), [103]);
  const ofAnother = subscription(it, build, `${channel}:other`, { token: token({ sub: 'ann', channel: 'x' }) });
  await until(() => ofAnother.state === 'unsubscribed', 'refused');
  assert.deepEqual(ofAnother.of('unsubscribed').map(c => c.code), [103]);
  const late = subscription(it, build, channel, {
    token: token({ sub: 'ann', channel }, -5),
    getToken: async () => token({ sub: 'ann', channel, info: { role: 'x' } }),
  });
  await late.ready();
  assert.deepEqual(late.of('error').map(e => e.error.code), [109]);
  const [own] = Object.values((await late.presence()).clients);
  assert.deepEqual(build.unpack(own.chanInfo), { role: 'x' });
}

export async function rpc_and_its_errors(server, build) {
  const it = client(build, server.url);
  it.connect();
  for (const value of [{ a: [1, 'ü\n', null] }, 'text', 7, null]) {
    assert.deepEqual(build.unpack((await it.rpc('echo', build.pack(value))).data), value);
  }
  assert.deepEqual(build.unpack((await it.rpc('sum', build.pack({ a: 2, b: 3 }))).data), { sum: 5 });
  assert.equal(await failure(it.rpc('fail', build.pack({}))), 400);
  assert.equal(await failure(it.rpc('nothing', build.pack({}))), 104);
  assert.equal(await failure(it.rpc('sum', build.pack('x'))), 107);
  await it.send(build.pack({ nobody: 'listens' }));
  await it.rpc('echo', build.pack(1));
}

export async function publications_history_and_their_errors(server, build, name) {
  const it = client(build, server.url, { token: token({ sub: 'ann' }) });
  it.connect();
  assert.equal(await failure(it.publish(name, build.pack(1))), 103, 'not subscribed');
  assert.equal(await failure(it.history(name)), 103);
  assert.equal(await failure(it.presence(name)), 103);
  assert.equal(await failure(it.presenceStats(name)), 103);
  const sub = subscription(it, build, name);
  await sub.ready();
  for (let n = 1; n <= 5; n++) await sub.publish(build.pack({ n }));
  await until(() => sub.values.length === 5, 'own publications');
  assert.deepEqual(sub.of('publication').map(p => p.offset), [1, 2, 3, 4, 5]);
  assert.equal(sub.of('publication')[0].info.user, 'ann');
  const position = await sub.history({ limit: 0 });
  assert.deepEqual([position.publications.length, position.offset], [0, 5]);
  const { epoch } = position;
  const offsets = async options => (await sub.history(options)).publications.map(p => p.offset);
  assert.deepEqual(await offsets({ limit: -1 }), [1, 2, 3, 4, 5]);
  assert.deepEqual(await offsets({ limit: 2 }), [1, 2]);
  assert.deepEqual(await offsets({ limit: 2, reverse: true }), [5, 4]);
  assert.deepEqual(await offsets({ limit: 10, since: { offset: 3, epoch } }), [4, 5]);
  assert.deepEqual(await offsets({ limit: 10, since: { offset: 3, epoch }, reverse: true }), [2, 1]);
  assert.equal(await failure(sub.history({ limit: 1, since: { offset: 1, epoch: 'xxxxxxxx' } })), 112);
  assert.deepEqual(build.unpack((await sub.history({ limit: 1 })).publications[0].data), { n: 1 });
  const none = subscription(it, build, `nohistory:${name}`);
  await none.ready();
  await none.publish(build.pack('live'));
  await until(() => none.values.length === 1, 'live');
  assert.equal(await failure(none.history({ limit: 1 })), 108);
  const [subscribed] = none.of('subscribed');
  assert.deepEqual([subscribed.recoverable, subscribed.positioned], [false, false]);
  assert.deepEqual(none.of('publication')[0].info.user, 'ann');
}

export async function presence_joins_and_leaves(server, build, name) {
  const [ann, bob] = ['ann', 'bob'].map(sub => client(build, server.url, { token: token({ sub }) }));
  const watching = subscription(ann, build, name, { joinLeave: true });
  ann.connect();
  await watching.ready();
  const other = subscription(bob, build, name);
  bob.connect();
  await other.ready();
  await until(() => watching.of('join').some(j => j.info.user === 'bob'), 'the join');
  assert.deepEqual(await watching.presenceStats(), { numClients: 2, numUsers: 2 });
  const users = Object.values((await other.presence()).clients).map(c => c.user).sort();
  assert.deepEqual(users, ['ann', 'bob']);
  other.unsubscribe();
  await until(() => watching.of('leave').length === 1, 'the leave');
  other.subscribe();
  await until(() => watching.of('join').filter(j => j.info.user === 'bob').length === 2, 'another join');
  bob.disconnect();
  await until(() => watching.of('leave').length === 2, 'the end of a connection');
  assert.deepEqual(other.of('join'), [], 'who has not asked is not told');
  assert.deepEqual(await watching.presenceStats(), { numClients: 1, numUsers: 1 });
}

export async function many_subscriptions_in_one_frame(server, build, name) {
  const it = client(build, server.url);
  const subs = Array.from({ length: 300 }, (_, n) => subscription(it, build, `${name}:${n}`));
  it.connect();
  await within(Promise.all(subs.map(sub => sub.ready())), 'all subscriptions');
  await server.api('broadcast', { channels: subs.map(sub => sub.channel), data: 'to all' });
  await until(() => subs.every(sub => sub.values.length === 1), 'a publication in each');
  assert.equal(it.of('connected').length, 1);
}

/// 512 are allowed, and all of them go out in one frame.
export async function too_many_subscriptions(server, build, name) {
  const it = client(build, server.url);
  const subs = Array.from({ length: 513 }, (_, n) => subscription(it, build, `${name}:${n}`));
  it.connect();
  await until(() => subs.at(-1).state === 'unsubscribed', 'one is too many');
  assert.deepEqual(subs.at(-1).of('unsubscribed').map(c => c.code), [106]);
  await within(Promise.all(subs.slice(0, -1).map(sub => sub.ready())), 'the others');
  assert.equal(it.of('connected').length, 1);
}

/// Publishes `count` numbers, at most `ahead` unanswered.
async function flood(server, channel, count, pause = 0) {
  for (let n = 0; n < count; n++) {
    const answer = await server.api('publish', { channel, data: { n } });
    assert.equal(answer.result.offset, n + 1);
    if (pause) await new Promise(ok => setTimeout(ok, pause));
  }
}

export async function two_thousand_publications_in_order(server, build, name) {
  const publisher = client(build, server.url);
  const readers = [0, 1, 2].map(() => client(build, server.url));
  const subs = readers.map(it => subscription(it, build, name));
  const own = subscription(publisher, build, name);
  for (const it of [publisher, ...readers]) it.connect();
  await Promise.all([own, ...subs].map(sub => sub.ready()));
  for (let n = 0; n < 2000; n += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, k) => own.publish(build.pack(n + k))));
  }
  await until(() => subs.every(sub => sub.values.length === 2000), 'all publications');
  for (const sub of [own, ...subs]) {
    assert.deepEqual(sub.values, Array.from({ length: 2000 }, (_, n) => n));
    assert.deepEqual(sub.of('publication').map(p => p.offset), Array.from({ length: 2000 }, (_, n) => n + 1));
    assert.equal(sub.of('subscribed').length, 1);
  }
}

export async function cuts_in_the_middle_of_a_flood_lose_nothing(server, build, name) {
  const proxy = await new Proxy(server).start();
  const readers = [0, 1, 2, 3].map(() => client(build, proxy.url));
  const subs = readers.map(it => subscription(it, build, name));
  for (const it of readers) it.connect();
  await Promise.all(subs.map(sub => sub.ready()));
  const flooding = flood(server, name, 800, 2);
  let cuts = 0;
  const cutting = setInterval(() => { proxy.cut(); cuts++; }, 130);
  await flooding.finally(() => clearInterval(cutting));
  await until(() => subs.every(sub => sub.values.length >= 800), 'all publications');
  assert.ok(cuts >= 5, `${cuts} cuts`);
  for (const sub of subs) {
    assert.deepEqual(sub.values.map(v => v.n), Array.from({ length: 800 }, (_, n) => n));
    const back = sub.of('subscribed').slice(1);
    assert.ok(back.length >= 3 && back.every(s => s.wasRecovering && s.recovered), JSON.stringify(back));
  }
  proxy.stop();
}

export async function a_history_that_is_too_small_is_told(server, build, name) {
  const proxy = await new Proxy(server).start();
  const channel = `smallhistory:${name}`;
  const it = client(build, proxy.url);
  const sub = subscription(it, build, channel);
  it.connect();
  await sub.ready();
  const publish = n => server.api('publish', { channel, data: n });
  await publish(1);
  await until(() => sub.values.length === 1, 'the first');
  proxy.isOpen = false;
  proxy.cut();
  for (const n of [2, 3]) await publish(n);
  proxy.isOpen = true;
  await until(() => sub.values.length === 3, 'two are held');
  assert.deepEqual(sub.values, [1, 2, 3]);
  proxy.isOpen = false;
  proxy.cut();
  for (const n of [4, 5, 6]) await publish(n);
  proxy.isOpen = true;
  await until(() => sub.of('subscribed').length === 3, 'it is back');
  const last = sub.of('subscribed')[2];
  assert.deepEqual([last.wasRecovering, last.recovered, last.streamPosition.offset], [true, false, 6]);
  assert.deepEqual(sub.values, [1, 2, 3]);
  await publish(7);
  await until(() => sub.values.length === 4, 'what comes then');
  assert.deepEqual(sub.values, [1, 2, 3, 7]);
  proxy.stop();
}

export async function a_restart_is_told(_, build, name) {
  const own = await new Server().start();
  const it = client(build, own.url);
  const sub = subscription(it, build, name);
  it.connect();
  await sub.ready();
  await own.api('publish', { channel: name, data: 1 });
  await until(() => sub.values.length === 1, 'the first');
  assert.equal(await own.stop(), 0, 'a clean end with a client');
  await own.start();
  await until(() => sub.of('subscribed').length === 2, 'it is back');
  const last = sub.of('subscribed')[1];
  assert.deepEqual([last.wasRecovering, last.recovered], [true, false], 'the history is another');
  await own.api('publish', { channel: name, data: 2 });
  await until(() => sub.values.length === 2, 'what comes then');
  await own.stop('SIGKILL');
}

export async function server_side_subscriptions(server, build, name) {
  const proxy = await new Proxy(server).start();
  const sub = `user_${name}`;
  const it = client(build, proxy.url, { token: token({ sub, channels: [name, `${name}:2`] }) });
  it.connect();
  await it.ready();
  assert.deepEqual(it.of('subscribed').map(s => s.channel), [name, `${name}:2`]);
  await server.api('publish', { channel: name, data: 1 });
  await until(() => it.of('publication').length === 1, 'a publication');
  proxy.isOpen = false;
  proxy.cut();
  await server.api('publish', { channel: name, data: 2 });
  proxy.isOpen = true;
  await until(() => it.of('publication').length === 2, 'what was missed');
  assert.deepEqual(
    it.of('publication').map(p => [p.channel, build.unpack(p.data), p.offset]),
    [
      [name, 1, 1],
      [name, 2, 2],
    ],
  );
  assert.deepEqual(it.of('subscribed').slice(2).map(s => s.recovered), [true, true]);
  await server.api('subscribe', { user: sub, channel: `${name}:3`, data: { why: 'because' } });
  await until(() => it.of('subscribed').length === 5, 'the push');
  assert.deepEqual(build.unpack(it.of('subscribed')[4].data), { why: 'because' });
  await server.api('publish', { channel: `${name}:3`, data: 3 });
  await until(() => it.of('publication').length === 3, 'a publication there');
  await server.api('unsubscribe', { user: sub, channel: name });
  await until(() => it.of('unsubscribed').length === 1, 'the end');
  await server.api('disconnect', { user: sub });
  await until(() => it.state === 'disconnected', 'sent away');
  assert.equal(it.of('disconnected')[0].code, 3503);
  proxy.stop();
}

export async function unsubscribed_by_the_api(server, build, name) {
  const it = client(build, server.url, { token: token({ sub: `u_${name}` }) });
  const sub = subscription(it, build, name);
  it.connect();
  await sub.ready();
  await server.api('unsubscribe', { user: `u_${name}`, channel: name });
  await until(() => sub.state === 'unsubscribed', 'the push');
  assert.deepEqual(sub.of('unsubscribed').map(c => c.code), [2000]);
  sub.subscribe();
  await sub.ready();
}
