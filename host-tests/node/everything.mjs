// A legacy MCP server: the reference server-everything behind an API key, which it lacks of its own.
// At its end it prints which headers reached it, so that the test can see what Jagway let through.
//
// In:  { port, key, header?: "x-api-key" }
// Out: { url }; when stdin closes: { requests, refused, headers: [names], jwt_in: [names, or "url"] }
import { timingSafeEqual } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { input, say, serveUntilStdinCloses } from './part.mjs';

const header = input.header ?? 'x-api-key';
const key = Buffer.from(input.key);

// Its PORT goes straight to listen(), which takes a path as well: on a Unix socket nothing can reach it
// past the key check, and no port has to be guessed free. It runs in this process, so both end as one.
const directory = mkdtempSync(join(tmpdir(), 'everything-'));
const socketPath = (process.env.PORT = join(directory, 'mcp.sock'));
process.argv[2] = 'streamableHttp';
await import('@modelcontextprotocol/server-everything/dist/index.js');

const seen = { requests: 0, refused: 0, headers: new Set(), jwt_in: new Set() };
const looksLikeJwt = /eyJ[\w-]+\.eyJ[\w-]+\./;

const server = createServer((incoming, outgoing) => {
  seen.requests += 1;
  for (const [name, value] of Object.entries(incoming.headers)) {
    seen.headers.add(name);
    if (looksLikeJwt.test(value)) seen.jwt_in.add(name);
  }
  if (looksLikeJwt.test(incoming.url)) seen.jwt_in.add('url');

  const given = Buffer.from(incoming.headers[header] ?? '');
  if (given.length !== key.length || !timingSafeEqual(given, key)) {
    seen.refused += 1;
    outgoing.writeHead(401, { 'content-type': 'text/plain' }).end('API key wanted\n');
    incoming.resume();
    return;
  }
  const { method, url: path, headers } = incoming;
  const onward = request({ socketPath, method, path, headers }, (answer) => {
    outgoing.writeHead(answer.statusCode, answer.headers);
    outgoing.flushHeaders(); // an event stream may have nothing to say for long
    answer.pipe(outgoing);
  });
  // Also when the caller hangs up on an event stream: the server must notice.
  outgoing.on('close', () => onward.destroy());
  onward.on('error', () => (outgoing.headersSent ? outgoing.destroy() : outgoing.writeHead(502).end()));
  incoming.pipe(onward);
});
process.on('exit', () => {
  rmSync(directory, { recursive: true, force: true });
  if (server.listening) say({ ...seen, headers: [...seen.headers].sort(), jwt_in: [...seen.jwt_in].sort() });
});
await new Promise((up, down) => server.once('error', down).listen(input.port ?? 0, '127.0.0.1', up));
serveUntilStdinCloses();
say({ url: `http://127.0.0.1:${server.address().port}/mcp` });
