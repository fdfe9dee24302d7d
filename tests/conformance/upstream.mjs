// The server behind the gateway while the official conformance suite looks at it: everything that the
// suite asks for, by the names that it asks for, over whichever transport it is told.
// Usage: node upstream.mjs stdio|streamable-http|sse
// Over HTTP it takes a free port of loopback, prints `listening URL` on stdout, and ends when its
// stdin does, so that it outlives no test.
import { randomUUID } from "node:crypto";
import { createMcpExpressApp } from "@modelcontextprotocol/sdk/server/express.js";
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { Events } from "./events.mjs";
import { makeServer } from "./server.mjs";

// What a client waits before it comes back for the rest of a stream that was closed on it.
const RETRY_MS = 200;

function refused(response, status, code, message) {
  response.status(status).json({ jsonrpc: "2.0", id: null, error: { code, message } });
}

// Streamable HTTP as of 2025-11-25: sessions, event ids, resumption, DELETE.
function streamableHttp(app) {
  const sessions = new Map();

  async function begin(request, response) {
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      eventStore: new Events(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => sessions.set(id, transport),
      onsessionclosed: (id) => sessions.delete(id),
    });
    await makeServer().connect(transport);
    await transport.handleRequest(request, response, request.body);
  }

  app.all("/mcp", async (request, response) => {
    const id = request.headers["mcp-session-id"];
    const transport = sessions.get(id);
    if (transport) {
      await transport.handleRequest(request, response, request.body);
    } else if (id !== undefined) {
      refused(response, 404, -32001, "there is no such session");
    } else if (request.method === "POST" && request.body?.method === "initialize") {
      await begin(request, response);
    } else {
      refused(response, 400, -32000, "a session begins with initialize");
    }
  });
  return "/mcp";
}

// The transport of 2024-11-05: one stream of events, and a URL to post to.
function sse(app) {
  const sessions = new Map();
  app.get("/sse", async (_request, response) => {
    const transport = new SSEServerTransport("/message", response);
    sessions.set(transport.sessionId, transport);
    response.on("close", () => sessions.delete(transport.sessionId));
    await makeServer().connect(transport);
  });
  app.post("/message", async (request, response) => {
    const transport = sessions.get(request.query.sessionId);
    if (transport) await transport.handlePostMessage(request, response, request.body);
    else refused(response, 404, -32001, "there is no such session");
  });
  return "/sse";
}

function listen(face) {
  const app = createMcpExpressApp({ host: "127.0.0.1" });
  const path = face(app);
  const listener = app.listen(0, "127.0.0.1", () => {
    process.stdout.write(`listening http://127.0.0.1:${listener.address().port}${path}\n`);
  });
  process.stdin.on("end", () => process.exit(0)).resume();
}

switch (process.argv[2]) {
  case "stdio":
    await makeServer().connect(new StdioServerTransport());
    break;
  case "streamable-http":
    listen(streamableHttp);
    break;
  case "sse":
    listen(sse);
    break;
  default:
    process.stderr.write("usage: node upstream.mjs stdio|streamable-http|sse\n");
    process.exit(64);
}
