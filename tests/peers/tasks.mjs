// The official TypeScript SDK as a client that makes tasks of calls.
// Usage: node tasks.mjs URL KEY TOOL. TOOL is of a research that asks what is meant by its topic.
// Prints one line of JSON; what is right or wrong with it is decided by the test that reads it.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [url, key, tool] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const client = new Client(
  { name: "tasks", version: "1.0.0" },
  { capabilities: { elicitation: { form: {} } } },
);
let related = null;
client.setRequestHandler(ElicitRequestSchema, (request) => {
  related = request.params._meta?.["io.modelcontextprotocol/related-task"]?.taskId ?? null;
  return { action: "accept", content: { interpretation: "snake" } };
});
await client.connect(new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } }));
await client.listTools();

const research = { name: tool, arguments: { topic: "python", ambiguous: true } };
const seen = { statuses: [], id: null, related: null, text: null, error: null };
for await (const message of client.experimental.tasks.callToolStream(research)) {
  if (message.type === "taskCreated") seen.id = message.task.taskId;
  if (message.type === "taskStatus") seen.statuses.push([message.task.taskId, message.task.status]);
  if (message.type === "result") seen.text = message.result.content[0].text;
  if (message.type === "error") seen.error = String(message.error);
}
seen.related = related;
const listed = await client.experimental.tasks.listTasks();
seen.listed = listed.tasks.map((task) => [task.taskId, task.status]);

let second;
for await (const message of client.experimental.tasks.callToolStream(research)) {
  if (message.type === "taskCreated") {
    second = message.task.taskId;
    break;
  }
}
seen.cancelled = (await client.experimental.tasks.cancelTask(second)).status;
seen.after = (await client.experimental.tasks.getTask(second)).status;
console.log(JSON.stringify(seen));
await client.close();
