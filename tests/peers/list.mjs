// The official TypeScript SDK lists the tools at a URL, and calls those it is asked to.
// Usage: node list.mjs URL KEY PLAN, where PLAN is JSON: {"client":"its name","calls":[{"name","arguments"}]}.
// Prints one line of JSON: the names, or the error that the SDK has with the list; and what was called.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);
const requestInit = { headers: { Authorization: `Bearer ${key}` } };
const client = new Client({ name: plan.client ?? "typescript-peer", version: "1.0.0" });
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit }));
const seen = { tools: null, error: null, calls: [] };
try {
  seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
} catch (error) {
  seen.error = String(error.message ?? error);
}
for (const call of plan.calls ?? []) {
  const { structuredContent, isError } = await client.callTool(call);
  seen.calls.push({ structured: structuredContent ?? null, is_error: isError ?? false });
}
await client.close();
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exit(0);
