"""Proposes tasks with a model that takes the process with it.

    python kill_driver.py SOURCE OUT ANSWERS

After so many answers the process kills itself (SIGKILL); a negative number lets it end.
"""

import os
import signal
import sys

from taskmill.backends import GENERATORS
from taskmill.backends.echo import Echo
from taskmill.recipes.propose import ProposeConfig, TaskModel, propose

SOURCE, OUT, ANSWERS = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Dying(Echo):
    """Echo, until it has answered often enough."""

    def generate(self, requests):
        for number, completion in enumerate(super().generate(requests)):
            if number == ANSWERS:
                os.kill(os.getpid(), signal.SIGKILL)
            yield completion


GENERATORS.register("dying", lambda name, revision, config: Dying(name))
found = propose(ProposeConfig(sources=(SOURCE,), model=TaskModel(ref="dying:")), OUT)
print(found["calls"]["made"], found["calls"]["reused"])
