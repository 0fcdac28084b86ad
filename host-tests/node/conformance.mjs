// The official conformance suite, which asks an authorization server as a client of MCP would.
//
// In:  { url: its issuer, scenario }
// Out: { checks: [{ id, status, errorMessage?, .. }] }, or { cannot: why } where Node is too old for it
import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { input, say } from './part.mjs';

function checks() {
  const directory = fs.mkdtempSync(join(tmpdir(), 'jagway-conformance-'));
  try {
    const suite = 'node_modules/@modelcontextprotocol/conformance/dist/index.js';
    const { stderr, error } = spawnSync(
      process.execPath,
      [suite, 'authorization', '--url', input.url, '--scenario', input.scenario, '-o', directory],
      { encoding: 'utf8', timeout: 50_000 },
    );
    // Its exit status tells whether every check passed; the file has more to say.
    const file = fs.readdirSync(directory, { recursive: true }).find((name) => name.endsWith('checks.json'));
    if (!file) throw new Error(`no checks: ${error ?? ''} ${stderr}`);
    return JSON.parse(fs.readFileSync(join(directory, file), 'utf8'));
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
}

if (fs.globSync) say({ checks: checks() });
else say({ cannot: `node is ${process.version}, and the conformance suite wants 22 or newer` });
