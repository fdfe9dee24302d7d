"""The official Python SDK uses every feature of the stateful protocol, by one connection after the other.

Usage: every_feature.py KEY CONNECTIONS, with the same CONNECTIONS and the same answer as every_feature.mjs.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from urllib.parse import urlsplit

from connection import connection
from mcp import Client, types
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference

SOON = 20
WATCHED = "test://watched-resource"


async def until(what, probe):
    begun = time.monotonic()
    while not await probe():
        if time.monotonic() - begun > SOON:
            raise TimeoutError(f"waited in vain for {what}")
        await asyncio.sleep(0.01)


async def code_of(work):
    try:
        await work
        return None
    except MCPError as error:
        return error.error.code


class Heard:
    """Who is asked, and what is said to them."""

    def __init__(self):
        self.asked, self.visited, self.complete = [], [], []
        self.logged, self.updated, self.changed = [], [], Counter()

    async def sample(self, _context, params):
        self.asked.append("sampling/createMessage")
        content = types.TextContent(type="text", text=f"ann heard {params.messages[0].content.text}")
        return types.CreateMessageResult(role="assistant", model="none", content=content)

    async def elicit(self, _context, params):
        mode = params.mode or "form"
        self.asked.append(f"elicitation/create {mode}")
        if mode == "url":
            self.visited.append(params.url)
            return types.ElicitResult(action="accept")
        return types.ElicitResult(action="accept", content={"username": "ann", "email": "ann@example.com"})

    async def roots(self, _context):
        self.asked.append("roots/list")
        return types.ListRootsResult(roots=[types.Root(uri="file:///ann", name="ann")])

    async def log(self, params):
        self.logged.append([params.level, params.data])

    async def message(self, message):
        method, params = getattr(message, "method", None), getattr(message, "params", None)
        if method == "notifications/elicitation/complete":
            self.complete.append(params.elicitation_id)
        elif method == "notifications/resources/updated":
            self.updated.append(str(params.uri))
        elif method is not None and method.endswith("/list_changed"):
            self.changed[method.split("/")[1]] += 1


class Peer:
    def __init__(self, client, heard):
        self.client, self.heard = client, heard

    async def tool(self, name, arguments=None, **how):
        return await self.client.call_tool(name, arguments or {}, **how)

    async def said(self, name, arguments=None):
        return (await self.tool(name, arguments)).content[0].text

    async def of_tools(self):
        async def kinds(name):
            return [part.type for part in (await self.tool(name)).content]

        failed = await self.tool("test_error_handling")
        structured = await self.tool("test_structured_content", {"city": "Paris"})
        return {
            "tools": len((await self.client.list_tools(cache_mode="refresh")).tools),
            "text": await self.said("test_simple_text"),
            "media": await kinds("test_multiple_content_types"),
            "sound": await kinds("test_audio_content"),
            "structured": structured.structured_content,
            "failed": [failed.is_error, failed.content[0].text],
            "unknown": await code_of(self.tool("test_nothing")),
            "pinged": await self.said("test_ping"),
        }

    async def of_progress(self):
        steps = []

        async def note(progress, total, message):
            steps.append([progress, total, message])

        await self.tool("test_tool_with_progress", progress_callback=note)
        return steps

    async def of_cancelling(self):
        marker, begun = f"python {uuid.uuid4()}", asyncio.Event()

        async def note(_progress, _total, _message):
            begun.set()

        call = asyncio.create_task(self.tool("test_wait", {"marker": marker}, progress_callback=note))
        await asyncio.wait_for(begun.wait(), SOON)
        call.cancel()
        try:
            await call
            ended = False
        except asyncio.CancelledError:
            ended = True

        async def is_known():
            return await self.said("test_was_taken_back", {"marker": marker}) == "true"

        await until("the server to hear of it", is_known)
        return ended

    async def of_prompts(self):
        got = await self.client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "é"})
        prompts = (await self.client.list_prompts(cache_mode="refresh")).prompts
        return {
            "prompts": [one.name for one in prompts],
            "prompt": got.messages[0].content.text,
            "unknown": await code_of(self.client.get_prompt("test_nothing")),
        }

    async def of_resources(self):
        async def read(uri):
            return (await self.client.read_resource(uri)).contents[0]

        resources = (await self.client.list_resources(cache_mode="refresh")).resources
        templates = (await self.client.list_resource_templates()).resource_templates
        return {
            "resources": [str(one.uri) for one in resources],
            "templates": [one.uri_template for one in templates],
            "text": (await read("test://static-text")).text,
            "binary": (await read("test://static-binary")).blob[:8],
            "templated": json.loads((await read("test://template/7/data")).text)["id"],
            "unknown": await code_of(read("nowhere://at/all")),
        }

    async def of_completions(self):
        async def completed(ref, name, value):
            return (await self.client.complete(ref, {"name": name, "value": value})).completion

        prompt = PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        template = ResourceTemplateReference(type="ref/resource", uri="test://template/{id}/data")
        of_template = await completed(template, "id", "")
        return {
            "prompt": (await completed(prompt, "arg1", "par")).values,
            "template": [len(of_template.values), of_template.total, of_template.has_more],
        }

    async def of_logging(self):
        logged = self.heard.logged
        await self.client.set_logging_level("error")
        await self.tool("test_tool_with_logging")
        quiet = len(logged)
        await self.client.set_logging_level("debug")
        await self.tool("test_tool_with_logging")

        async def is_loud():
            return len(logged) >= quiet + 3

        await until("what was logged", is_loud)
        return {"quiet": quiet, "loud": logged}

    async def of_subscriptions(self):
        await self.client.session.subscribe_resource(WATCHED)
        await self.tool("test_update_watched_resource")

        async def is_told():
            return self.heard.updated

        await until("an update", is_told)
        await self.client.session.unsubscribe_resource(WATCHED)
        # That nothing comes of it shows at the end, when all that could come after it has come.
        await self.tool("test_update_watched_resource")

    async def of_changes(self):
        """Whether each kind of list became another, and it was told."""

        async def tools():
            page = await self.client.list_tools(cache_mode="refresh")
            return any(one.name == "test_extra" for one in page.tools)

        async def prompts():
            page = await self.client.list_prompts(cache_mode="refresh")
            return any(one.name == "test_extra" for one in page.prompts)

        async def resources():
            page = await self.client.list_resources(cache_mode="refresh")
            return any(one.name == "extra" for one in page.resources)

        seen = {}
        for kind, has in {"tools": tools, "prompts": prompts, "resources": resources}.items():
            before, seen[kind] = await has(), True
            for wanted in (not before, before):
                told = self.heard.changed[kind]

                async def is_told():
                    return self.heard.changed[kind] > told

                await self.tool("test_change_list", {"kind": kind})
                await until(f"news of {kind}", is_told)
                seen[kind] = seen[kind] and await has() == wanted
        return seen

    async def of_questions(self):
        visit = f"python {uuid.uuid4()}"
        seen = {
            "sampled": await self.said("test_sampling", {"prompt": "hello"}),
            "elicited": await self.said("test_elicitation", {"message": "who?"}),
            "visited": await self.said("test_elicitation_url", {"id": visit}),
            "roots": await self.said("test_list_roots"),
        }

        async def is_complete():
            return visit in self.heard.complete

        await until("the end of the visit", is_complete)
        seen["url"] = [urlsplit(str(url)).hostname for url in self.heard.visited]
        if seen["roots"].startswith("ann"):
            before = await self.said("test_roots_changes")
            await self.client.session.send_roots_list_changed()

            async def is_heard():
                return await self.said("test_roots_changes") != before

            await until("the server to hear of roots", is_heard)
        return seen


async def used(url, kind, key, http_client, headers):
    heard = Heard()
    handlers = {
        "sampling_callback": heard.sample,
        "elicitation_callback": heard.elicit,
        "list_roots_callback": heard.roots,
        "logging_callback": heard.log,
        "message_handler": heard.message,
    }
    async with Client(connection(url, kind, key, http_client, headers), **handlers) as client:
        peer = Peer(client, heard)
        await client.send_ping()
        capabilities = client.server_capabilities.model_dump(exclude_none=True)
        seen = {
            "capabilities": sorted(capabilities),
            "tools": await peer.of_tools(),
            "progress": await peer.of_progress(),
            "cancelled": await peer.of_cancelling(),
            "prompts": await peer.of_prompts(),
            "resources": await peer.of_resources(),
            "completions": await peer.of_completions(),
            "logging": await peer.of_logging(),
            "questions": await peer.of_questions(),
        }
        await peer.of_subscriptions()
        seen["changes"] = await peer.of_changes()
    return seen | {"updated": heard.updated, "asked": heard.asked}


async def main(key, connections):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    seen = []
    for one in connections:
        async with create_mcp_http_client(headers=headers) as http_client:
            seen.append(await used(one["url"], one["kind"], key, http_client, headers))
    print(json.dumps(seen))


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
