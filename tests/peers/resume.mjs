// The official TypeScript SDK behind a network that breaks: the connection that carries the answer of a
// call is cut after its first report of progress, and the SDK resumes the stream by itself.
// Usage: node resume.mjs URL KEY TOOL ARGUMENTS. Prints one line of JSON.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key, name, argumentsText] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const resumed = [];
let cuts = 0;

/** The response with a body that breaks once progress has been seen in it. */
function breaking(response) {
  const reader = response.body.getReader();
  let text = "";
  const body = new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) return controller.close();
      text += new TextDecoder().decode(value);
      controller.enqueue(value);
      if (text.includes("notifications/progress")) {
        cuts += 1;
        await reader.cancel();
        controller.error(new Error("the network broke"));
      }
    },
  });
  return new Response(body, { status: response.status, headers: response.headers });
}

async function unreliable(input, init) {
  const response = await fetch(input, init);
  const lastEvent = new Headers(init?.headers).get("last-event-id");
  if (lastEvent) resumed.push(lastEvent);
  const isCall = typeof init?.body === "string" && init.body.includes('"tools/call"');
  return isCall ? breaking(response) : response;
}

const client = new Client({ name: "typescript-peer", version: "1.0.0" });
const reconnectionOptions = {
  initialReconnectionDelay: 50, maxReconnectionDelay: 50, reconnectionDelayGrowFactor: 1, maxRetries: 3,
};
const transport = new StreamableHTTPClientTransport(new URL(url), {
  requestInit: { headers }, fetch: unreliable, reconnectionOptions,
});
await client.connect(transport);
const steps = [];
const onprogress = ({ progress }) => steps.push(progress);
const call = { name, arguments: JSON.parse(argumentsText) };
const result = await client.callTool(call, undefined, { onprogress });
const text = result.content[0]?.text ?? "";
process.stdout.write(`${JSON.stringify({ cuts, resumed, steps, text })}\n`);
process.exit(0);
