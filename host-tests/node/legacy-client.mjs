// An MCP client that knows nothing of EMA: SDK v1 with headers set by hand (an ID token or an API key).
//
// In:  { url, headers: { .. }, tool, arguments? }
// Out: { server, tools: [names], result }
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { input, say, tryTool } from './part.mjs';

const transport = new StreamableHTTPClientTransport(new URL(input.url), { requestInit: { headers: input.headers } });
say(await tryTool(new Client({ name: 'legacy-client', version: '1' }), transport));
