"""The official Python SDK behind a network that breaks, as resume.mjs has it for the other.

Usage: resume.py URL KEY TOOL ARGUMENTS. Prints one line of JSON.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

resumed, cuts = [], 0


class Breaking(httpx2.AsyncByteStream):
    """A body that breaks once progress has been seen in it."""

    def __init__(self, body):
        self.body = body

    async def __aiter__(self):
        global cuts
        seen = b""
        async for chunk in self.body:
            yield chunk
            seen += chunk
            if b"notifications/progress" in seen:
                cuts += 1
                raise httpx2.ReadError("the network broke")

    async def aclose(self):
        await self.body.aclose()


class Unreliable(httpx2.AsyncHTTPTransport):
    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        if "last-event-id" in request.headers:
            resumed.append(request.headers["last-event-id"])
        if request.method == "POST" and b'"tools/call"' in await request.aread():
            response.stream = Breaking(response.stream)
        return response


async def main(url, key, name, arguments):
    steps = []

    async def note(progress, _total, _message):
        steps.append(progress)

    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(transport=Unreliable(), headers=headers, timeout=30) as http_client:
        async with Client(streamable_http_client(url, http_client=http_client)) as client:
            result = await client.call_tool(name, arguments, progress_callback=note)
    text = result.content[0].text if result.content else ""
    print(json.dumps({"cuts": cuts, "resumed": resumed, "steps": steps, "text": text}))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
