"""A hub on 127.0.0.1 for tests, benchmarks and pictures: its API, ``resolve``, and a CDN on a second port.

It answers as the hub was seen to answer, with redirects to signed links that expire, and refuses gated and private
repositories. `test_loopback_hub` checks it over plain HTTP, `tests/cli/test_hf_cache.py` with the hub's own client.
"""

from support.loopback_hub.content import BLOCK, Content, Generated, blocks, hex_digest
from support.loopback_hub.repos import Repo
from support.loopback_hub.server import LoopbackHub, Recorded

__all__ = ["BLOCK", "Content", "Generated", "LoopbackHub", "Recorded", "Repo", "blocks", "hex_digest"]
