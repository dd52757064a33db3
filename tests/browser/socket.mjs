// A WebSocket client of a few lines, for what a browser would not do: many at once, and one that never reads.

import { connect } from 'node:net';

/// `client.received` holds the texts that have come; `client.ended` resolves to the close code and reason.
export class Socket {
  received = [];
  buffer = Buffer.alloc(0);

  /// Resolves when the upgrade is answered. With `reads: false` nothing is read after that.
  static async open(port, path, { reads = true } = {}) {
    const client = new Socket();
    client.tcp = connect({ port, host: '127.0.0.1' });
    let end;
    client.ended = new Promise(ok => { end = ok; });
    client.tcp.on('close', () => end(client.close_frame ?? null));
    await new Promise((ok, fail) => {
      client.tcp.on('error', fail);
      client.tcp.once('connect', () =>
        client.tcp.write(
          `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
            'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
        ),
      );
      const answered = data => {
        client.buffer = Buffer.concat([client.buffer, data]);
        const at = client.buffer.indexOf('\r\n\r\n');
        if (at < 0) return;
        if (!client.buffer.toString('latin1').startsWith('HTTP/1.1 101 ')) return fail(new Error('no upgrade'));
        client.tcp.off('data', answered);
        client.buffer = client.buffer.subarray(at + 4);
        if (reads) client.tcp.on('data', more => client.read(more));
        else client.tcp.pause();
        ok();
      };
      client.tcp.on('data', answered);
    });
    if (reads) client.read(Buffer.alloc(0));
    return client;
  }

  send(text) { this.frame(0x81, Buffer.from(text)); }

  close() {
    if (this.tcp.isPaused()) this.tcp.destroy();
    else this.frame(0x88, Buffer.from([3, 232]));
  }

  /// The mask is zero: it changes nothing.
  frame(first, payload) {
    const length =
      payload.length < 126
        ? [0x80 | payload.length]
        : payload.length < 65_536
          ? [0xfe, payload.length >> 8, payload.length & 255]
          : [0xff, 0, 0, 0, 0, ...[24, 16, 8, 0].map(shift => (payload.length >> shift) & 255)];
    if (this.tcp.writable) this.tcp.write(Buffer.concat([Buffer.from([first, ...length, 0, 0, 0, 0]), payload]));
  }

  read(data) {
    this.buffer = Buffer.concat([this.buffer, data]);
    for (;;) {
      if (this.buffer.length < 2) return;
      const short = this.buffer[1];
      const head = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (this.buffer.length < head) return;
      const length =
        short === 126 ? this.buffer.readUInt16BE(2) : short === 127 ? Number(this.buffer.readBigUInt64BE(2)) : short;
      if (this.buffer.length < head + length) return;
      this.take(this.buffer[0], this.buffer.subarray(head, head + length));
      this.buffer = this.buffer.subarray(head + length);
    }
  }

  take(first, payload) {
    if (first === 0x81) this.received.push(payload.toString());
    if (first === 0x89) this.frame(0x8a, payload);
    if (first !== 0x88) return;
    this.close_frame = [payload.length > 1 ? payload.readUInt16BE(0) : 1005, payload.subarray(2).toString()];
    this.frame(0x88, payload.subarray(0, 2));
    this.tcp.end();
  }
}
