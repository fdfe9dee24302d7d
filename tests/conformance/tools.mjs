// The tools that answer by themselves. Those that ask the client something stand in asking.mjs.
import { setTimeout as sleep } from "node:timers/promises";
import { asking } from "./asking.mjs";
import { beyond } from "./beyond.mjs";
import { PNG, WAV } from "./media.mjs";

const NOTHING = { type: "object", properties: {} };

// How long a tool pauses between two of its signs of life.
const PAUSE_MS = 50;

const text = (words) => ({ type: "text", text: words });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const embedded = (uri, mimeType, words) => ({
  type: "resource",
  resource: { uri, mimeType, text: words },
});

// A schema that uses what JSON Schema 2020-12 has and a simpler reader loses.
const RICH = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  $defs: {
    address: {
      $anchor: "addressDef",
      type: "object",
      properties: { street: { type: "string" }, city: { type: "string" } },
    },
  },
  properties: {
    name: { type: "string" },
    address: { $ref: "#/$defs/address" },
    contactMethod: { type: "string", enum: ["phone", "email"] },
    phone: { type: "string" },
    email: { type: "string" },
  },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};

const answering = [
  {
    name: "test_simple_text",
    description: "Answers with a text.",
    inputSchema: NOTHING,
    serve: () => ({ content: [text("This is a simple text response for testing.")] }),
  },
  {
    name: "test_image_content",
    description: "Answers with a picture.",
    inputSchema: NOTHING,
    serve: () => ({ content: [image] }),
  },
  {
    name: "test_audio_content",
    description: "Answers with a sound.",
    inputSchema: NOTHING,
    serve: () => ({ content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }),
  },
  {
    name: "test_embedded_resource",
    description: "Answers with a resource in itself.",
    inputSchema: NOTHING,
    serve: () => ({
      content: [
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
      ],
    }),
  },
  {
    name: "test_multiple_content_types",
    description: "Answers with a text, a picture and a resource.",
    inputSchema: NOTHING,
    serve: () => ({
      content: [
        text("Multiple content types test:"),
        image,
        embedded(
          "test://mixed-content-resource",
          "application/json",
          JSON.stringify({ test: "data", value: 123 }),
        ),
      ],
    }),
  },
  {
    name: "test_error_handling",
    description: "Always fails.",
    inputSchema: NOTHING,
    serve: () => ({
      isError: true,
      content: [text("This tool intentionally returns an error for testing")],
    }),
  },
  {
    name: "test_tool_with_logging",
    description: "Logs three times while it runs.",
    inputSchema: NOTHING,
    serve: async (_given, { log }) => {
      await log("info", "Tool execution started");
      await sleep(PAUSE_MS);
      await log("info", "Tool processing data");
      await sleep(PAUSE_MS);
      await log("info", "Tool execution completed");
      return { content: [text("Logged three times.")] };
    },
  },
  {
    name: "test_tool_with_progress",
    description: "Tells how far it is, three times, to who wants to know.",
    inputSchema: NOTHING,
    serve: async (_given, { progress }) => {
      await progress(0, 100, "begun");
      await sleep(PAUSE_MS);
      await progress(50, 100, "half");
      await sleep(PAUSE_MS);
      await progress(100, 100, "done");
      return { content: [text("Told how far it was, three times.")] };
    },
  },
  {
    name: "test_reconnection",
    description: "Closes the stream of its call before it answers; the answer is there to be fetched.",
    inputSchema: NOTHING,
    serve: async (_given, { closeStream }) => {
      await sleep(PAUSE_MS);
      closeStream();
      await sleep(4 * PAUSE_MS);
      return { content: [text("Answered after the stream was closed.")] };
    },
  },
  {
    name: "json_schema_2020_12_tool",
    description: "Has a schema that uses what JSON Schema 2020-12 has.",
    inputSchema: RICH,
    serve: (given) => ({ content: [text(JSON.stringify(given))] }),
  },
];

export const tools = [...answering, ...asking];

// Tools that no list shows: whoever calls them knows of them.
export const hidden = [
  ...beyond,
  ...["tool", "prompt", "resource"].map((kind) => ({
    name: `test_trigger_${kind}_change`,
    serve: async (_given, { changed }) => {
      await changed(`${kind}s`);
      return { content: [text(`Said that the list of ${kind}s has changed.`)] };
    },
  })),
  {
    name: "test_update_watched_resource",
    serve: async (_given, { updated }) => {
      await updated("test://watched-resource");
      return { content: [text("Told subscribers that the watched resource has changed.")] };
    },
  },
];
