// The prompts, and the completion of their arguments and of the resource template's.
import { ErrorCode, McpError } from "@modelcontextprotocol/sdk/types.js";
import { PNG } from "./media.mjs";

// The most that one answer to completion/complete may hold.
const VALUES_MAX = 100;

const user = (content) => ({ role: "user", content });
const words = (text) => user({ type: "text", text });

export const prompts = [
  {
    name: "test_simple_prompt",
    title: "A simple prompt",
    description: "One message, no arguments.",
    serve: () => [words("This is a simple prompt for testing.")],
  },
  {
    name: "test_prompt_with_arguments",
    title: "A prompt with arguments",
    description: "Repeats its two arguments.",
    arguments: [
      { name: "arg1", description: "the first", required: true },
      { name: "arg2", description: "the second", required: true },
    ],
    serve: ({ arg1, arg2 }) => [words(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
  },
  {
    name: "test_prompt_with_embedded_resource",
    title: "A prompt that carries a resource",
    description: "Embeds the resource that it is given.",
    arguments: [{ name: "resourceUri", description: "what to embed", required: true }],
    serve: ({ resourceUri: uri }) => [
      user({
        type: "resource",
        resource: { uri, mimeType: "text/plain", text: "Embedded resource content for testing." },
      }),
      words("Please process the embedded resource above."),
    ],
  },
  {
    name: "test_prompt_with_image",
    title: "A prompt that carries a picture",
    description: "One red pixel, and a request.",
    serve: () => [
      user({ type: "image", data: PNG, mimeType: "image/png" }),
      words("Please analyze the image above."),
    ],
  },
];

export function said(prompt, given) {
  const missing = (prompt.arguments ?? []).filter(({ name, required }) => required && !(name in given));
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name).join(", ");
    throw new McpError(ErrorCode.InvalidParams, `${prompt.name} lacks ${names}`);
  }
  return { description: prompt.description, messages: prompt.serve(given) };
}

// What the arguments may be, by what refers to them.
const VALUES = {
  "test_prompt_with_arguments/arg1": ["paris", "park", "party", "test", "testing"],
  "test_prompt_with_arguments/arg2": ["world", "word"],
  "test_prompt_with_embedded_resource/resourceUri": ["test://example-resource"],
  "test://template/{id}/data/id": Array.from({ length: 150 }, (_, id) => String(id)),
};

export function completed({ ref, argument: { name, value } }) {
  const of = ref.type === "ref/prompt" ? ref.name : ref.uri;
  const fitting = (VALUES[`${of}/${name}`] ?? []).filter((one) => one.startsWith(value));
  const values = fitting.slice(0, VALUES_MAX);
  const completion = { values, total: fitting.length, hasMore: fitting.length > values.length };
  return { completion };
}
