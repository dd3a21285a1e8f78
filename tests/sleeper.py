"""A part that says its process id and does nothing. Run as ``python -m tests.sleeper``."""

import os
import time

if __name__ == "__main__":
    print(os.getpid(), flush=True)  # noqa: T201
    time.sleep(60)
