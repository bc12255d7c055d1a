"""Stripe's stand-in for this machine: localstripe as it is, but for what a machine shared with others should not have.

It listens on loopback only (localstripe itself: on every interface), and its books stay in memory (localstripe itself
writes all of them into one file under /tmp at every call, whoever runs it). It honours idempotency keys (localstripe itself
does not look at them): without that, a call that is still on its way when its caller is killed counts twice.

    python local.py PORT
"""

import asyncio
import logging
import sys

from aiohttp import web
from localstripe import resources, server

resources.Store.dump_to_disk = lambda store: None

calls = {}  # By account and key: what was asked, who asks now, and the answer.


class Call:
    def __init__(self, asked):
        self.asked, self.turn, self.answer = asked, asyncio.Lock(), None


@web.middleware
async def once(request, handler):
    """Answers a key that it knows with what it said before (https://docs.stripe.com/api/idempotent_requests)."""
    key = request.headers.get("Idempotency-Key")
    if request.method != "POST" or key is None:
        return await handler(request)
    asked = (request.path, await request.read())
    call = calls.setdefault((request.headers.get("Authorization"), key), Call(asked))
    if call.asked != asked:
        message = "Keys for idempotent requests can only be used with the same parameters they were first used with."
        return web.json_response({"error": {"type": "idempotency_error", "message": message}}, status=400)
    async with call.turn:
        if call.answer is None:
            response = await handler(request)
            call.answer = {"status": response.status, "body": response.body, "content_type": response.content_type}
    return web.Response(**call.answer)


server.app.middlewares.insert(0, once)

logger = logging.getLogger("aiohttp.access")
logger.setLevel(logging.DEBUG)
logger.addHandler(logging.StreamHandler())

web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), access_log=logger)
