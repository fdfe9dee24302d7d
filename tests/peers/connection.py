"""How the Python SDK reaches an endpoint: over either transport, or by `$METAMCPD connect`."""

import os

from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client


def connection(url, kind, key, http_client, headers):
    if kind == "stdio":
        environment = {"METAMCP_API_KEY": key}
        return stdio_client(
            StdioServerParameters(command=os.environ["METAMCPD"], args=["connect", url], env=environment)
        )
    if kind == "streamable":
        return streamable_http_client(url, http_client=http_client)
    return sse_client(url, headers=headers)
