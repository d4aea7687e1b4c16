"""Train the tiny model in a process of its own, which may kill itself at a durable write."""

import os
import signal
import sys
from pathlib import Path

import tiny

from taskmill import durable
from taskmill.train import TrainConfig, train

SETTINGS = {"rank": 4, "batch_tokens": 400, "micro_tokens": 300, "epochs": 2.0, "evaluations": 3, "lr": 5e-3}


def main(base, out, kill):
    seen = 0

    def die(name):
        nonlocal seen
        if name.startswith("checkpoint"):
            seen += 1
            if seen == kill:
                os.kill(os.getpid(), signal.SIGKILL)

    durable.on_write(die if kill else None)
    config = TrainConfig(base=base, checkpoint_minutes=0, dropout=0.1, precision="fp32", **SETTINGS)
    train(tiny.rows(60), config, Path(out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
