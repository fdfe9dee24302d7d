// Plays a client scenario of the conformance suite through the gateway: attaches the suite's server by
// the admin API, publishes it at an endpoint of its own, and asks there what the scenario wants asked.
// Usage: METAMCPD_BASE=… METAMCPD_ADMIN_KEY=… MCP_CONFORMANCE_SCENARIO=… node driver.mjs URL
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { setTimeout as sleep } from "node:timers/promises";

const { METAMCPD_BASE: base, METAMCPD_ADMIN_KEY: key, MCP_CONFORMANCE_SCENARIO: scenario } = process.env;
const url = process.argv.at(-1);

// How long the gateway may take until it has listed what the server offers.
const PATIENCE_MS = 15_000;
const GLANCE_MS = 20;
// How long a call may take; the suite waits 30 s for all of this.
const CALL_MS = 10_000;

async function admin(method, path, body) {
  const response = await fetch(`${base}/api/v1/${path}`, {
    method,
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

async function attached(name) {
  await admin("POST", "mcp-servers", { name, type: "STREAMABLE_HTTP", url });
  await admin("POST", "namespaces", { name, naming: "NEVER", servers: [name] });
  await admin("POST", "endpoints", { name, namespace: name, enable_api_key_auth: false });
  const until = Date.now() + PATIENCE_MS;
  for (;;) {
    const { runtime } = await admin("GET", `mcp-servers/${name}`);
    if (runtime.state === "READY") return;
    if (Date.now() > until) throw new Error(`not READY: ${JSON.stringify(runtime)}`);
    await sleep(GLANCE_MS);
  }
}

async function detached(name) {
  await admin("DELETE", `endpoints/${name}`);
  await admin("DELETE", `namespaces/${name}`);
  await admin("DELETE", `mcp-servers/${name}`);
}

// Calls a tool, and gives up before the suite gives up on this program.
function called(client, name, given) {
  return client.callTool({ name, arguments: given }, undefined, { timeout: CALL_MS });
}

// What is asked in each scenario, of a client that has a session.
const plays = {
  initialize: (client) => client.listTools(),
  tools_call: async (client) => {
    await client.listTools();
    await called(client, "add_numbers", { a: 5, b: 3 });
  },
  "elicitation-sep1034-client-defaults": async (client) => {
    // The person accepts and leaves every field as it is; the SDK fills the defaults in.
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: {} }));
    await client.listTools();
    await called(client, "test_client_elicitation_defaults", {});
  },
  "sse-retry": async (client) => {
    await client.listTools();
    await called(client, "test_reconnection", {});
  },
  "json-schema-2020-12-preservation": async (client) => {
    const { tools: [rich, echo] } = await client.listTools();
    await called(client, echo.name, { schema: rich.inputSchema });
  },
};

const play = plays[scenario];
if (!play) throw new Error(`no play for ${scenario}`);

const name = `${scenario}-${process.pid}`;
try {
  await attached(name);
  const client = new Client(
    { name: "conformance-driver", version: "1.0.0" },
    { capabilities: { elicitation: { form: { applyDefaults: true } } } },
  );
  const transport = new StreamableHTTPClientTransport(new URL(`${base}/metamcp/${name}/mcp`));
  await client.connect(transport);
  await play(client);
  await transport.terminateSession();
  await client.close();
} finally {
  await detached(name);
}
