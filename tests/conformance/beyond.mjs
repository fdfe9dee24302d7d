// Tools for what the conformance suite does not ask for, and the official SDKs can do. No list shows
// them, so that the suite finds what it found before.
import {
  ElicitResultSchema,
  EmptyResultSchema,
  ListRootsResultSchema,
} from "@modelcontextprotocol/sdk/types.js";

const text = (words) => ({ type: "text", text: words });
const without = (capability) => ({
  isError: true,
  content: [text(`The client does not support ${capability}.`)],
});

// The calls of `test_wait` that were taken back, by their markers.
const takenBack = new Set();

export const beyond = [
  {
    name: "test_structured_content",
    serve: ({ city }) => {
      const structuredContent = { city, degrees: 21.5, hours: [1, 2] };
      return { structuredContent, content: [text(JSON.stringify(structuredContent))] };
    },
  },
  {
    // Tells that it has begun, and answers when it is taken back, which nobody hears.
    name: "test_wait",
    serve: async ({ marker }, { progress, signal }) => {
      const ended = new Promise((resolve) => signal.addEventListener("abort", resolve));
      await progress(1, 2, "waiting");
      await ended;
      takenBack.add(marker);
      return { content: [] };
    },
  },
  {
    name: "test_was_taken_back",
    serve: ({ marker }) => ({ content: [text(String(takenBack.has(marker)))] }),
  },
  {
    name: "test_elicitation_url",
    serve: async ({ id }, { can, ask, complete }) => {
      if (!can.elicitation?.url) return without("elicitation by URL");
      const params = {
        mode: "url",
        message: "Please sign in.",
        url: `https://sign.example/in?id=${id}`,
        elicitationId: id,
      };
      const { action } = await ask({ method: "elicitation/create", params }, ElicitResultSchema);
      await complete(id);
      return { content: [text(action)] };
    },
  },
  {
    name: "test_list_roots",
    serve: async (_given, { can, ask }) => {
      if (!can.roots) return without("roots");
      const { roots } = await ask({ method: "roots/list" }, ListRootsResultSchema);
      return { content: [text(roots.map(({ uri, name }) => `${name} ${uri}`).join("\n"))] };
    },
  },
  {
    name: "test_roots_changes",
    serve: (_given, { rootsChanges }) => ({ content: [text(String(rootsChanges()))] }),
  },
  {
    name: "test_ping",
    serve: async (_given, { ask }) => {
      await ask({ method: "ping" }, EmptyResultSchema);
      return { content: [text("The client is there.")] };
    },
  },
  {
    // Lists one entry more than before, or one less, and says so to every session.
    name: "test_change_list",
    serve: async ({ kind }, { change }) => {
      await change(kind);
      return { content: [text(`The list of ${kind} is another.`)] };
    },
  },
];
