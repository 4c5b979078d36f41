"""Ready-made handlers for `faulty_server.FaultyServer`: base (honest, and ways to combine), ranges, bodies, flow."""

from support.faults.base import *  # noqa: F403
from support.faults.bodies import *  # noqa: F403
from support.faults.flow import *  # noqa: F403
from support.faults.ranges import *  # noqa: F403
