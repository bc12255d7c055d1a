"""Stripe's stand-in for this machine: localstripe as it is, but for what a machine shared with others should not have.

It listens on loopback only (localstripe itself: on every interface), and its books stay in memory (localstripe itself
writes all of them into one file under /tmp at every call, whoever runs it).

    python local.py PORT
"""

import logging
import sys

from aiohttp import web
from localstripe import resources, server

resources.Store.dump_to_disk = lambda store: None

logger = logging.getLogger("aiohttp.access")
logger.setLevel(logging.DEBUG)
logger.addHandler(logging.StreamHandler())

web.run_app(server.app, host="127.0.0.1", port=int(sys.argv[1]), access_log=logger)
