// The resources: three that are listed, one template, and what is read of each.
import { McpError } from "@modelcontextprotocol/sdk/types.js";
import { PNG } from "./media.mjs";

// Resource not found, as of the revisions up to 2025-11-25.
const NOT_FOUND = -32002;

const TEMPLATE = /^test:\/\/template\/([^/]+)\/data$/;

function text(uri, words, mimeType = "text/plain") {
  return { uri, mimeType, text: words };
}

export const listed = [
  {
    uri: "test://static-text",
    name: "static-text",
    title: "Text that never changes",
    description: "A text that never changes.",
    mimeType: "text/plain",
    serve: (uri) => text(uri, "This is the content of the static text resource."),
  },
  {
    uri: "test://static-binary",
    name: "static-binary",
    title: "A picture that never changes",
    description: "One red pixel.",
    mimeType: "image/png",
    serve: (uri) => ({ uri, mimeType: "image/png", blob: PNG }),
  },
  {
    uri: "test://watched-resource",
    name: "watched-resource",
    title: "Text that can be watched",
    description: "Subscribers are told when `test_update_watched_resource` is called.",
    mimeType: "text/plain",
    serve: (uri) => text(uri, "This is the content of the watched resource."),
  },
];

export const templates = [
  {
    uriTemplate: "test://template/{id}/data",
    name: "template",
    title: "Data by id",
    description: "JSON that says which id it was asked for.",
    mimeType: "application/json",
  },
];

// The content behind a URI, be it listed or by the template.
export function found(uri) {
  const resource = listed.find((one) => one.uri === uri);
  if (resource) return resource.serve(uri);
  const id = TEMPLATE.exec(uri)?.[1];
  if (id !== undefined) {
    const data = { id, templateTest: true, data: `Data for ID: ${id}` };
    return text(uri, JSON.stringify(data), "application/json");
  }
  throw new McpError(NOT_FOUND, "Resource not found", { uri });
}
