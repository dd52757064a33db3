// Each error code as the official SDK for JavaScript sees it, in both of its builds. tests/centrifuge_sdk.rs starts the
// server, which causes the errors that the example cannot cause, and runs this with the server's URL. Codes 103, 104,
// 106 to 109 and 112 are in checks.mjs.

import assert from 'node:assert/strict';
import { builds, client, closeClients, failure, subscription, until, within } from './harness.mjs';

const [url] = process.argv.slice(2);

const checks = {
  /// 100 is temporary: the SDK repeats a subscribe, but not an rpc.
  async internal_100(build, name) {
    const it = client(build, url);
    it.connect();
    const error = await it.rpc('broken', build.pack({})).then(() => assert.fail('no error'), error => error);
    assert.deepEqual([error.code, error.temporary], [100, true]);
    const sub = subscription(it, build, `flaky:${name}`);
    await within(sub.ready(), 'the second attempt');
    assert.deepEqual(sub.of('error').map(e => e.error.code), [100]);
  },

  /// 101 is final: the SDK stays away.
  async unauthorized_101(build) {
    const it = client(build, url, { token: 'eve' });
    it.connect();
    await until(() => it.state === 'disconnected', 'refused');
    assert.deepEqual(it.of('disconnected').map(c => c.code), [101]);
    const other = client(build, url, { token: 'ann' });
    other.connect();
    assert.equal(await failure(other.rpc('login', build.pack({}))), 101);
  },

  async unknown_channel_102(build, name) {
    const it = client(build, url);
    it.connect();
    const sub = subscription(it, build, `nowhere:${name}`);
    await until(() => sub.state === 'unsubscribed', 'refused');
    assert.deepEqual(sub.of('unsubscribed').map(c => c.code), [102]);
    assert.equal(await failure(it.publish(`nowhere:${name}`, build.pack(1))), 102);
    assert.equal(await failure(it.history(`nowhere:${name}`)), 102);
    assert.equal(await failure(it.presence(`nowhere:${name}`)), 102);
  },

  /// A server-side subscription, and then one of the client's own to the same channel.
  async already_subscribed_105(build) {
    const it = client(build, url, { token: 'own' });
    it.connect();
    await it.ready();
    assert.deepEqual(it.of('subscribed').map(s => s.channel), ['own']);
    const sub = subscription(it, build, 'own');
    await until(() => sub.state === 'unsubscribed', 'refused');
    assert.deepEqual(sub.of('unsubscribed').map(c => c.code), [105]);
    assert.equal(it.of('unsubscribed').length, 0, 'the first one goes on');
  },

  /// The token with which the SDK refreshes a subscription has expired: the subscription ends.
  async expired_110(build) {
    const it = client(build, url, { token: 'ann' });
    it.connect();
    const sub = subscription(it, build, 'secret', { token: 'ann+1', getToken: async () => 'old' });
    await sub.ready();
    await until(() => sub.state === 'unsubscribed', 'not refreshed');
    assert.deepEqual(sub.of('unsubscribed').map(c => c.code), [110]);
    assert.equal(it.state, 'connected');
  },

  /// A shared history that takes no more.
  async too_many_requests_111(build, name) {
    const it = client(build, url);
    it.connect();
    const sub = subscription(it, build, name);
    await sub.ready();
    await sub.publish(build.pack(1));
    await until(() => sub.values.length === 1, 'it works');
    await it.rpc('stick', build.pack(true));
    const error = await sub.publish(build.pack(2)).then(() => assert.fail('no error'), error => error);
    assert.deepEqual([error.code, error.temporary], [111, true]);
    await it.rpc('stick', build.pack(false));
    await sub.publish(build.pack(3));
    await until(() => sub.values.length === 2, 'it works again');
    assert.deepEqual(sub.values, [1, 3]);
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  for (const [kind, build] of Object.entries(builds)) {
    try {
      await within(check(build, `${name}_${kind}`), 'end of the check', 60_000);
      console.log(`ok      ${kind}: ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAILED  ${kind}: ${name}\n${error.stack ?? JSON.stringify(error)}`);
    }
    closeClients();
  }
}
process.exit(failed ? 1 : 0);
