// The official TypeScript SDK as a client of whatever URL it is given.
// Usage: node client.mjs URL streamable|sse|stdio KEY PLAN; by stdio it starts `$METAMCPD connect URL`.
// It can be asked for sampling, elicitation and roots, and answers with the name that the plan gives it.
// PLAN is JSON: {"person":"ann","calls":[{"name","arguments"}],"progress":{"name","arguments"},"cancel":{"name","arguments","after_ms"},
// "features":{"prompt":{"name","arguments"},"read":[uri],"complete":{"ref","argument"}}}.
// Prints one line of JSON; what is right or wrong with it is decided by the test that reads it.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { connection } from "./connection.mjs";

const [url, kind, key, planText] = process.argv.slice(2);
const plan = JSON.parse(planText);

async function listed(client) {
  const names = [];
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? {} : { cursor });
    names.push(...page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return names;
}

async function called(client, { name, arguments: given }) {
  const result = await client.callTool({ name, arguments: given });
  return {
    name,
    is_error: result.isError ?? false,
    text: result.content.filter((part) => part.type === "text").map((part) => part.text).join("\n"),
    structured: result.structuredContent ?? null,
  };
}

async function progressed(client, { name, arguments: given }) {
  const steps = [];
  const onprogress = ({ progress, total }) => steps.push({ progress, total: total ?? null });
  const result = await client.callTool({ name, arguments: given }, undefined, { onprogress });
  return { steps, text: result.content[0]?.text ?? "" };
}

async function cancelled(client, { name, arguments: given, after_ms: after }) {
  const abort = new AbortController();
  const begun = Date.now();
  const timer = setTimeout(() => abort.abort("the person changed their mind"), after);
  try {
    await client.callTool({ name, arguments: given }, undefined, { signal: abort.signal });
    return { error: null, took_ms: Date.now() - begun };
  } catch (error) {
    return { error: String(error.message ?? error), took_ms: Date.now() - begun };
  } finally {
    clearTimeout(timer);
  }
}

async function featured(client, { prompt, read, complete }) {
  const prompts = (await client.listPrompts()).prompts.map((one) => one.name);
  const resources = (await client.listResources()).resources.map((one) => one.uri);
  const templates = (await client.listResourceTemplates()).resourceTemplates.map((one) => one.uriTemplate);
  const got = await client.getPrompt(prompt);
  const texts = [];
  for (const uri of read) texts.push((await client.readResource({ uri })).contents[0].text ?? null);
  let missing = null;
  try {
    await client.readResource({ uri: "nowhere://at/all" });
  } catch (error) {
    missing = error.code;
  }
  const completed = await client.complete(complete);
  return {
    prompts,
    resources,
    templates,
    prompt: JSON.stringify(got.messages),
    texts,
    missing,
    completed: completed.completion.values,
    instructions: client.getInstructions() ?? null,
  };
}

const person = plan.person ?? "nobody";
const capabilities = { sampling: {}, elicitation: { form: {}, url: {} }, roots: { listChanged: true } };
const client = new Client({ name: "typescript-peer", version: "1.0.0" }, { capabilities });
const asked = [];
client.setRequestHandler(CreateMessageRequestSchema, async ({ method }) => {
  asked.push(method);
  return { role: "assistant", model: "none", content: { type: "text", text: `from ${person}` } };
});
client.setRequestHandler(ElicitRequestSchema, async ({ method }) => {
  asked.push(method);
  return { action: "accept", content: { name: person, check: true } };
});
client.setRequestHandler(ListRootsRequestSchema, async ({ method }) => {
  asked.push(method);
  return { roots: [{ uri: `file:///${person}`, name: person }] };
});
const logged = [];
client.setNotificationHandler(LoggingMessageNotificationSchema, ({ params }) => {
  logged.push(params);
});
const transport = connection(url, kind, key);
await client.connect(transport);
const seen = {
  sdk: "typescript",
  server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  tools: await listed(client),
  calls: [],
};
await client.ping();
if (plan.level) await client.setLoggingLevel(plan.level);
for (const call of plan.calls ?? []) {
  seen.calls.push(await called(client, call));
}
if (plan.features) seen.features = await featured(client, plan.features);
if (plan.progress) seen.progress = await progressed(client, plan.progress);
if (plan.cancel) {
  seen.cancel = await cancelled(client, plan.cancel);
  // A cancelled call must leave the session usable.
  seen.after_cancel = (await listed(client)).length;
}
Object.assign(seen, { asked, logged });
if (kind === "streamable") {
  seen.session = transport.sessionId ?? null;
  await transport.terminateSession();
}
await client.close();
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exit(0);
