// The official TypeScript SDK uses every feature of the stateful protocol, by one connection after the
// other. The server is the one of tests/conformance.
// Usage: node every_feature.mjs KEY CONNECTIONS, which is JSON: [{"kind":"streamable|sse|stdio","url"}].
// Prints one line of JSON with what each connection brought; what is right or wrong with it is decided
// by the test that reads it.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import {
  CreateMessageRequestSchema,
  ElicitationCompleteNotificationSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
  LoggingMessageNotificationSchema,
  PromptListChangedNotificationSchema,
  ResourceListChangedNotificationSchema,
  ResourceUpdatedNotificationSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { connection } from "./connection.mjs";

const [key, connectionsText] = process.argv.slice(2);
const SOON_MS = 20_000;
const WATCHED = "test://watched-resource";

async function until(what, probe) {
  const begun = Date.now();
  while (!(await probe())) {
    if (Date.now() - begun > SOON_MS) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function codeOf(work) {
  try {
    await work;
    return null;
  } catch (error) {
    return error.code ?? String(error);
  }
}

function makeClient(heard) {
  const capabilities = { sampling: {}, elicitation: { form: {}, url: {} }, roots: { listChanged: true } };
  const client = new Client({ name: "typescript-peer", version: "1.0.0" }, { capabilities });
  client.setRequestHandler(CreateMessageRequestSchema, async ({ params }) => {
    heard.asked.push("sampling/createMessage");
    const said = params.messages[0].content.text;
    return { role: "assistant", model: "none", content: { type: "text", text: `ann heard ${said}` } };
  });
  client.setRequestHandler(ElicitRequestSchema, async ({ params }) => {
    heard.asked.push(`elicitation/create ${params.mode ?? "form"}`);
    if (params.mode === "url") {
      heard.visited.push(params.url);
      return { action: "accept" };
    }
    return { action: "accept", content: { username: "ann", email: "ann@example.com" } };
  });
  client.setRequestHandler(ListRootsRequestSchema, async () => {
    heard.asked.push("roots/list");
    return { roots: [{ uri: "file:///ann", name: "ann" }] };
  });
  const noted = (schema, note) => client.setNotificationHandler(schema, ({ params }) => note(params));
  noted(ElicitationCompleteNotificationSchema, ({ elicitationId }) => heard.complete.push(elicitationId));
  noted(LoggingMessageNotificationSchema, ({ level, data }) => heard.logged.push([level, data]));
  noted(ResourceUpdatedNotificationSchema, ({ uri }) => heard.updated.push(uri));
  noted(ToolListChangedNotificationSchema, () => (heard.changed.tools += 1));
  noted(PromptListChangedNotificationSchema, () => (heard.changed.prompts += 1));
  noted(ResourceListChangedNotificationSchema, () => (heard.changed.resources += 1));
  return client;
}

async function ofTools(client, tool) {
  const kinds = async (name) => (await tool(name)).content.map(({ type }) => type);
  const failed = await tool("test_error_handling");
  return {
    tools: (await client.listTools()).tools.length,
    text: (await tool("test_simple_text")).content[0].text,
    media: await kinds("test_multiple_content_types"),
    sound: await kinds("test_audio_content"),
    structured: (await tool("test_structured_content", { city: "Paris" })).structuredContent,
    failed: [failed.isError, failed.content[0].text],
    unknown: await codeOf(tool("test_nothing")),
    pinged: (await tool("test_ping")).content[0].text,
  };
}

async function ofProgress(client) {
  const steps = [];
  const onprogress = ({ progress, total, message }) => steps.push([progress, total, message]);
  await client.callTool({ name: "test_tool_with_progress", arguments: {} }, undefined, { onprogress });
  return steps;
}

async function ofCancelling(client, tool) {
  const marker = `typescript ${Math.random()}`;
  const abort = new AbortController();
  const onprogress = () => abort.abort("the person changed their mind");
  const call = { name: "test_wait", arguments: { marker } };
  const outcome = await codeOf(client.callTool(call, undefined, { onprogress, signal: abort.signal }));
  await until("the server to hear of it", async () =>
    (await tool("test_was_taken_back", { marker })).content[0].text === "true");
  return outcome !== null;
}

async function ofPrompts(client) {
  const given = { name: "test_prompt_with_arguments", arguments: { arg1: "a", arg2: "é" } };
  const { messages } = await client.getPrompt(given);
  return {
    prompts: (await client.listPrompts()).prompts.map(({ name }) => name),
    prompt: messages[0].content.text,
    unknown: await codeOf(client.getPrompt({ name: "test_nothing" })),
  };
}

async function ofResources(client) {
  const read = async (uri) => (await client.readResource({ uri })).contents[0];
  const templates = (await client.listResourceTemplates()).resourceTemplates;
  return {
    resources: (await client.listResources()).resources.map(({ uri }) => uri),
    templates: templates.map(({ uriTemplate }) => uriTemplate),
    text: (await read("test://static-text")).text,
    binary: (await read("test://static-binary")).blob.slice(0, 8),
    templated: JSON.parse((await read("test://template/7/data")).text).id,
    unknown: await codeOf(read("nowhere://at/all")),
  };
}

async function ofCompletions(client) {
  const completed = async (ref, name, value) =>
    (await client.complete({ ref, argument: { name, value } })).completion;
  const prompt = { type: "ref/prompt", name: "test_prompt_with_arguments" };
  const template = { type: "ref/resource", uri: "test://template/{id}/data" };
  const { values, total, hasMore } = await completed(template, "id", "");
  return {
    prompt: (await completed(prompt, "arg1", "par")).values,
    template: [values.length, total, hasMore],
  };
}

async function ofLogging(client, tool, heard) {
  await client.setLoggingLevel("error");
  await tool("test_tool_with_logging");
  const quiet = heard.logged.length;
  await client.setLoggingLevel("debug");
  await tool("test_tool_with_logging");
  await until("what was logged", () => heard.logged.length >= quiet + 3);
  return { quiet, loud: heard.logged };
}

async function ofSubscriptions(client, tool, heard) {
  await client.subscribeResource({ uri: WATCHED });
  await tool("test_update_watched_resource");
  await until("an update", () => heard.updated.length > 0);
  await client.unsubscribeResource({ uri: WATCHED });
  // That nothing comes of it shows at the end, when all that could come after it has come.
  await tool("test_update_watched_resource");
}

// Whether each kind of list became another, and it was told.
async function ofChanges(client, tool, heard) {
  const lists = {
    tools: async () => (await client.listTools()).tools.some(({ name }) => name === "test_extra"),
    prompts: async () => (await client.listPrompts()).prompts.some(({ name }) => name === "test_extra"),
    resources: async () => (await client.listResources()).resources.some(({ name }) => name === "extra"),
  };
  const seen = {};
  for (const [kind, has] of Object.entries(lists)) {
    const before = await has();
    for (const wanted of [!before, before]) {
      const told = heard.changed[kind];
      await tool("test_change_list", { kind });
      await until(`news of ${kind}`, () => heard.changed[kind] > told);
      seen[kind] = (seen[kind] ?? true) && (await has()) === wanted;
    }
  }
  return seen;
}

async function ofQuestions(client, tool, heard) {
  const said = async (name, given) => (await tool(name, given)).content[0].text;
  const id = `typescript ${Math.random()}`;
  const seen = {
    sampled: await said("test_sampling", { prompt: "hello" }),
    elicited: await said("test_elicitation", { message: "who?" }),
    visited: await said("test_elicitation_url", { id }),
    roots: await said("test_list_roots"),
  };
  await until("the end of the visit", () => heard.complete.includes(id));
  seen.url = heard.visited.map((url) => new URL(url).host);
  if (seen.roots.startsWith("ann")) {
    const before = await said("test_roots_changes");
    await client.sendRootsListChanged();
    await until("the server to hear of roots", async () => (await said("test_roots_changes")) !== before);
  }
  return seen;
}

async function used({ kind, url }) {
  const changed = { tools: 0, prompts: 0, resources: 0 };
  const heard = { asked: [], visited: [], complete: [], logged: [], updated: [], changed };
  const client = makeClient(heard);
  await client.connect(connection(url, kind, key));
  const tool = (name, given = {}) => client.callTool({ name, arguments: given });
  await client.ping();
  const seen = {
    capabilities: Object.keys(client.getServerCapabilities()).sort(),
    tools: await ofTools(client, tool),
    progress: await ofProgress(client),
    cancelled: await ofCancelling(client, tool),
    prompts: await ofPrompts(client),
    resources: await ofResources(client),
    completions: await ofCompletions(client),
    logging: await ofLogging(client, tool, heard),
    questions: await ofQuestions(client, tool, heard),
  };
  await ofSubscriptions(client, tool, heard);
  seen.changes = await ofChanges(client, tool, heard);
  seen.updated = heard.updated;
  seen.asked = heard.asked;
  await client.close();
  return seen;
}

const seen = [];
for (const one of JSON.parse(connectionsText)) seen.push(await used(one));
process.stdout.write(`${JSON.stringify(seen)}\n`);
process.exit(0);
