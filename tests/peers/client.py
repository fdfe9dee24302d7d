"""The official Python SDK as a client of whatever URL it is given.

Usage: client.py URL streamable|sse|stdio KEY PLAN, with the same PLAN and the same answer as client.mjs.
"""

import asyncio
import json
import sys
import time

from connection import connection
from mcp import Client, types
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference


async def listed(client):
    names, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor, cache_mode="refresh")
        names += [tool.name for tool in page.tools]
        cursor = page.next_cursor
        if cursor is None:
            return names


async def called(client, call):
    result = await client.call_tool(call["name"], call["arguments"])
    return {
        "name": call["name"],
        "is_error": bool(result.is_error),
        "text": "\n".join(part.text for part in result.content if part.type == "text"),
        "structured": result.structured_content,
    }


async def progressed(client, call):
    steps = []

    async def note(progress, total, message):
        steps.append({"progress": progress, "total": total})

    result = await client.call_tool(call["name"], call["arguments"], progress_callback=note)
    return {"steps": steps, "text": result.content[0].text if result.content else ""}


async def cancelled(client, call):
    begun = time.monotonic()
    task = asyncio.create_task(client.call_tool(call["name"], call["arguments"]))
    await asyncio.sleep(call["after_ms"] / 1000)
    task.cancel()
    try:
        await task
        error = None
    except asyncio.CancelledError:
        error = "cancelled"
    return {"error": error, "took_ms": int((time.monotonic() - begun) * 1000)}


async def featured(client, plan):
    refs = {"ref/prompt": PromptReference, "ref/resource": ResourceTemplateReference}
    got = await client.get_prompt(plan["prompt"]["name"], plan["prompt"]["arguments"])
    texts = []
    for uri in plan["read"]:
        texts.append(getattr((await client.read_resource(uri)).contents[0], "text", None))
    try:
        await client.read_resource("nowhere://at/all")
        missing = None
    except MCPError as error:
        missing = error.error.code
    ref = plan["complete"]["ref"]
    completed = await client.complete(refs[ref["type"]](**ref), plan["complete"]["argument"])
    return {
        "prompts": [one.name for one in (await client.list_prompts()).prompts],
        "resources": [str(one.uri) for one in (await client.list_resources()).resources],
        "templates": [one.uri_template for one in (await client.list_resource_templates()).resource_templates],
        "prompt": got.model_dump_json(),
        "texts": texts,
        "missing": missing,
        "completed": completed.completion.values,
        "instructions": client.instructions,
    }


class Person:
    """Who is asked: everything is answered with the name that the plan gives."""

    def __init__(self, name):
        self.name, self.asked, self.logged = name, [], []

    async def sample(self, _context, _params):
        self.asked.append("sampling/createMessage")
        content = types.TextContent(type="text", text=f"from {self.name}")
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def elicit(self, _context, _params):
        self.asked.append("elicitation/create")
        return types.ElicitResult(action="accept", content={"name": self.name, "check": True})

    async def roots(self, _context):
        self.asked.append("roots/list")
        return types.ListRootsResult(roots=[types.Root(uri=f"file:///{self.name}", name=self.name)])

    async def log(self, params):
        self.logged.append({"level": params.level, "data": params.data})


async def main(url, kind, key, plan):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    person = Person(plan.get("person", "nobody"))
    handlers = {
        "sampling_callback": person.sample,
        "elicitation_callback": person.elicit,
        "list_roots_callback": person.roots,
        "logging_callback": person.log,
    }
    async with create_mcp_http_client(headers=headers) as http_client:
        async with Client(connection(url, kind, key, http_client, headers), **handlers) as client:
            if "level" in plan:
                await client.set_logging_level(plan["level"])
            seen = {
                "sdk": "python",
                "server": client.server_info.model_dump(exclude_none=True),
                "capabilities": client.server_capabilities.model_dump(exclude_none=True),
                "version": client.protocol_version,
                "tools": await listed(client),
                "calls": [await called(client, call) for call in plan.get("calls", [])],
            }
            if "features" in plan:
                seen["features"] = await featured(client, plan["features"])
            if "progress" in plan:
                seen["progress"] = await progressed(client, plan["progress"])
            if "cancel" in plan:
                seen["cancel"] = await cancelled(client, plan["cancel"])
                # A cancelled call must leave the session usable.
                seen["after_cancel"] = len(await listed(client))
    print(json.dumps(seen | {"asked": person.asked, "logged": person.logged}))


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
