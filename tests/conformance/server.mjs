// One server with every feature of the stateful protocol, for one session. The SDK's low level is
// used, so that what is listed is exactly what stands in the tables beside this file.
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  CompleteRequestSchema,
  ErrorCode,
  GetPromptRequestSchema,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  McpError,
  ReadResourceRequestSchema,
  RootsListChangedNotificationSchema,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { completed, prompts, said } from "./prompts.mjs";
import { found, listed, templates } from "./resources.mjs";
import { hidden, tools } from "./tools.mjs";

const LEVELS = [
  "debug", "info", "notice", "warning", "error", "critical", "alert", "emergency",
];

const CAPABILITIES = {
  completions: {},
  logging: {},
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  tools: { listChanged: true },
};

// What a list shows of an entry; the rest of it is how the entry is served.
const shown = ({ serve, ...entry }) => entry;

// The sessions of this process. They have the same lists, and hear of it when one changes.
const sessions = new Set();

// What a list has besides, every other time that it is changed.
const EXTRA = {
  tools: [tools, {
    name: "test_extra",
    description: "Comes and goes.",
    inputSchema: { type: "object" },
    serve: () => ({ content: [{ type: "text", text: "extra" }] }),
  }],
  prompts: [prompts, { name: "test_extra", description: "Comes and goes.", serve: () => [] }],
  resources: [listed, {
    uri: "test://extra",
    name: "extra",
    serve: (uri) => ({ uri, mimeType: "text/plain", text: "extra" }),
  }],
};

async function change(kind) {
  const [list, extra] = EXTRA[kind];
  const at = list.indexOf(extra);
  if (at < 0) list.push(extra);
  else list.splice(at, 1);
  const news = { method: `notifications/${kind}/list_changed` };
  // One that is just being closed has nobody to tell.
  await Promise.allSettled([...sessions].map((session) => session.notification(news)));
}

function orRefuse(entry, what, name) {
  if (!entry) throw new McpError(ErrorCode.InvalidParams, `there is no ${what} ${name}`);
  return entry;
}

export function makeServer() {
  const server = new Server(
    { name: "conformance-upstream", version: "1.0.0" },
    { capabilities: CAPABILITIES, instructions: "Everything that the conformance suite asks for." },
  );
  // Until a client says otherwise, it is told everything.
  let level = 0;
  const subscribed = new Set();
  let rootsChanges = 0;
  sessions.add(server);
  server.onclose = () => sessions.delete(server);

  // What a tool may do for the one call that it serves.
  const within = (extra, params) => ({
    can: server.getClientCapabilities() ?? {},
    ask: extra.sendRequest,
    log: async (at, data) => {
      if (LEVELS.indexOf(at) < level) return;
      await extra.sendNotification({
        method: "notifications/message",
        params: { level: at, logger: "conformance-upstream", data },
      });
    },
    progress: async (progress, total, message) => {
      const progressToken = params._meta?.progressToken;
      if (progressToken === undefined) return;
      await extra.sendNotification({
        method: "notifications/progress",
        params: { progressToken, progress, total, message },
      });
    },
    // Over stdio and SSE there is no stream of one call, and nothing to close.
    closeStream: () => extra.closeSSEStream?.(),
    signal: extra.signal,
    rootsChanges: () => rootsChanges,
    complete: (elicitationId) => extra.sendNotification({
      method: "notifications/elicitation/complete",
      params: { elicitationId },
    }),
    change,
    changed: (kind) => server.notification({ method: `notifications/${kind}/list_changed` }),
    updated: async (uri) => {
      if (subscribed.has(uri)) await server.sendResourceUpdated({ uri });
    },
  });

  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: tools.map(shown) }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const { name, arguments: given } = params;
    const tool = [...tools, ...hidden].find((one) => one.name === name);
    return orRefuse(tool, "tool", name).serve(given ?? {}, within(extra, params));
  });

  server.setRequestHandler(ListPromptsRequestSchema, () => ({ prompts: prompts.map(shown) }));
  server.setRequestHandler(GetPromptRequestSchema, ({ params: { name, arguments: given } }) => {
    const prompt = prompts.find((one) => one.name === name);
    return said(orRefuse(prompt, "prompt", name), given ?? {});
  });
  server.setRequestHandler(CompleteRequestSchema, ({ params }) => completed(params));

  server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources: listed.map(shown) }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
    resourceTemplates: templates.map(shown),
  }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => ({
    contents: [found(uri)],
  }));
  server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => {
    found(uri);
    subscribed.add(uri);
    return {};
  });
  server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => {
    subscribed.delete(uri);
    return {};
  });

  server.setNotificationHandler(RootsListChangedNotificationSchema, () => {
    rootsChanges += 1;
  });
  server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
    level = LEVELS.indexOf(params.level);
    return {};
  });
  return server;
}
