// How the TypeScript SDK reaches an endpoint: over either transport, or by `$METAMCPD connect`.
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

export function connection(url, kind, key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (kind === "stdio") {
    return new StdioClientTransport({
      command: process.env.METAMCPD,
      args: ["connect", url],
      env: { METAMCP_API_KEY: key },
      stderr: "inherit",
    });
  }
  const address = new URL(url);
  if (kind === "streamable") {
    return new StreamableHTTPClientTransport(address, { requestInit: { headers } });
  }
  // The event stream is opened by a fetch of its own, which takes no `requestInit`.
  const eventSourceInit = {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...headers, Accept: "text/event-stream" } }),
  };
  return new SSEClientTransport(address, { requestInit: { headers }, eventSourceInit });
}
