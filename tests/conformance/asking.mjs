// The tools that ask the client something before they answer.
import { CreateMessageResultSchema, ElicitResultSchema } from "@modelcontextprotocol/sdk/types.js";

const text = (words) => ({ type: "text", text: words });

function without(capability) {
  return { isError: true, content: [text(`The client does not support ${capability}.`)] };
}

// A tool that asks the client's person with a form, and answers with what came of it.
function form({ name, description, properties: input, message, schema, heading }) {
  return {
    name,
    description,
    inputSchema: { type: "object", properties: input ?? {}, required: Object.keys(input ?? {}) },
    serve: async (given, { can, ask }) => {
      if (!can.elicitation) return without("elicitation");
      const params = { message: given.message ?? message, requestedSchema: schema };
      const request = { method: "elicitation/create", params };
      const { action, content } = await ask(request, ElicitResultSchema);
      const outcome = `action=${action}, content=${JSON.stringify(content ?? {})}`;
      return { content: [text(`${heading}: ${outcome}`)] };
    },
  };
}

const titled = (values, title) =>
  values.map((value, at) => ({ const: value, title: `${["First", "Second", "Third"][at]} ${title}` }));

const OPTIONS = ["option1", "option2", "option3"];
const VALUES = ["value1", "value2", "value3"];

export const asking = [
  {
    name: "test_sampling",
    description: "Has the client's model answer a prompt.",
    inputSchema: {
      type: "object",
      properties: { prompt: { type: "string", description: "what to ask the model" } },
      required: ["prompt"],
    },
    serve: async ({ prompt }, { can, ask }) => {
      if (!can.sampling) return without("sampling");
      const messages = [{ role: "user", content: text(prompt) }];
      const request = { method: "sampling/createMessage", params: { messages, maxTokens: 100 } };
      const { content } = await ask(request, CreateMessageResultSchema);
      return { content: [text(`LLM response: ${content.text ?? JSON.stringify(content)}`)] };
    },
  },
  form({
    name: "test_elicitation",
    description: "Asks the client's person who they are.",
    properties: { message: { type: "string", description: "how to ask" } },
    schema: {
      type: "object",
      properties: {
        username: { type: "string", description: "User's response" },
        email: { type: "string", description: "User's email address" },
      },
      required: ["username", "email"],
    },
    heading: "User response",
  }),
  form({
    name: "test_elicitation_sep1034_defaults",
    description: "Asks with a default for every primitive type.",
    message: "Please look over the defaults.",
    schema: {
      type: "object",
      properties: {
        name: { type: "string", description: "a name", default: "John Doe" },
        age: { type: "integer", description: "an age", default: 30 },
        score: { type: "number", description: "a score", default: 95.5 },
        status: {
          type: "string",
          description: "a status",
          enum: ["active", "inactive", "pending"],
          default: "active",
        },
        verified: { type: "boolean", description: "whether it is verified", default: true },
      },
      required: [],
    },
    heading: "Elicitation completed",
  }),
  form({
    name: "test_elicitation_sep1330_enums",
    description: "Asks with every form of a choice.",
    message: "Please choose.",
    schema: {
      type: "object",
      properties: {
        untitledSingle: { type: "string", enum: OPTIONS },
        titledSingle: { type: "string", oneOf: titled(VALUES, "Option") },
        legacyEnum: {
          type: "string",
          enum: ["opt1", "opt2", "opt3"],
          enumNames: ["Option One", "Option Two", "Option Three"],
        },
        untitledMulti: { type: "array", items: { type: "string", enum: OPTIONS } },
        titledMulti: { type: "array", items: { anyOf: titled(VALUES, "Choice") } },
      },
      required: [],
    },
    heading: "Elicitation completed",
  }),
];
