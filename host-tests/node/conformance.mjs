// The official conformance suite: it asks an authorization server as a client of MCP would, or plays identity provider,
// authorization server and MCP server for a client.
//
// In:  { scenario, url: the server's issuer }, or
//      { scenario, command: to run the client, for a shell; env: { .. } for it, beside what the suite tells it }
// Out: { checks: [{ id, status, description, errorMessage?, .. }], passed: the suite's own verdict, words: what it said },
//      or { cannot: why } where Node is too old for it
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { input, say } from './part.mjs';

const subject = input.command
  ? ['client', '--command', input.command, '--timeout', '40000']
  : ['authorization', '--url', input.url];

function result() {
  const directory = fs.mkdtempSync(join(tmpdir(), 'jagway-conformance-'));
  try {
    const suite = 'node_modules/@modelcontextprotocol/conformance/dist/index.js';
    const { status, stderr, error } = spawnSync(
      process.execPath,
      [suite, ...subject, '--scenario', input.scenario, '-o', directory],
      { encoding: 'utf8', timeout: 50_000, env: { ...process.env, ...input.env } },
    );
    const file = fs.readdirSync(directory, { recursive: true }).find((name) => name.endsWith('checks.json'));
    if (!file) throw new Error(`no checks: ${error ?? ''} ${stderr}`);
    // Only its exit status tells whether the client ended well; only the file has every check.
    return { checks: JSON.parse(fs.readFileSync(join(directory, file), 'utf8')), passed: status === 0, words: stderr };
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

if (fs.globSync) say(result());
else say({ cannot: `node is ${process.version}, and the conformance suite wants 22 or newer` });
