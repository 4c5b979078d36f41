"""A hub on 127.0.0.1 for tests, benchmarks and pictures: its API, ``resolve``, and a CDN on a second port.

It answers as the hub was seen to answer: gated, private and renamed repositories, pages of trees, redirects to
signed links that expire. ``tests/test_loopback_hub.py`` checks it with httpx and with the hub's own client.
"""

from support.loopback_hub.content import BLOCK, Content, Generated, blocks, hex_digest
from support.loopback_hub.repos import Repo
from support.loopback_hub.server import LoopbackHub, Recorded

__all__ = ["BLOCK", "Content", "Generated", "LoopbackHub", "Recorded", "Repo", "blocks", "hex_digest"]
