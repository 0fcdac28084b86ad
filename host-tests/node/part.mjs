// What every part shares: input from the environment, one JSON line out, an end when the test ends.
import { writeSync } from 'node:fs';

if (!process.env.JAGWAY_PART) throw new Error('JAGWAY_PART must hold the JSON input of this part');
export const input = JSON.parse(process.env.JAGWAY_PART);
delete process.env.JAGWAY_PART; // server-everything has a tool that shows its environment

// Libraries chat on stdout; it is ours alone, so that the test can parse each line it reads there.
console.log = console.info = console.debug = console.error;

// Synchronous, so that a line printed on the way out is not lost.
export const say = (line) => writeSync(1, JSON.stringify(line) + '\n');

// A server lives until its stdin closes: a test that dies, by whatever way, leaves no orphan behind.
export function serveUntilStdinCloses() {
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
  process.on('SIGTERM', () => process.exit(0));
  process.on('SIGINT', () => process.exit(0));
}

// Connects an MCP client of either SDK, lists the tools and calls the one asked for.
export async function tryTool(client, transport) {
  await client.connect(transport);
  const { tools } = await client.listTools();
  const result = await client.callTool({ name: input.tool, arguments: input.arguments ?? {} });
  if (result.isError) throw new Error(`tool ${input.tool}: ${JSON.stringify(result.content)}`);
  const server = client.getServerVersion()?.name;
  await transport.terminateSession?.(); // DELETE: else the server keeps the session
  await client.close();
  return { server, tools: tools.map((tool) => tool.name), result };
}
