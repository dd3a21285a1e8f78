"""The encoder service on the port given, with a fake encoder in its replica: the start of a process for tests.

A text that begins with "slowly" takes a second; one that begins with "crash" raises something unforeseen.
"""

import asyncio
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from encoder.interface import Encoded, Encoder
from services.encoder_service import serve_until
from services.settings import EncoderSettings
from tests.fakes import FakeEncoder


class MoodyEncoder(FakeEncoder):
    async def encode_queries(self, queries: Sequence[str]) -> Encoded:
        if queries and queries[0].startswith("slowly"):
            await asyncio.sleep(1)
        if queries and queries[0].startswith("crash"):
            raise RuntimeError(queries[0])
        return await super().encode_queries(queries)


@dataclass(frozen=True)
class MoodyEncoderFactory:
    fingerprint: str

    def __call__(self) -> Encoder:
        return MoodyEncoder(fingerprint=self.fingerprint)


def main() -> None:
    settings = EncoderSettings.load()
    applications = {
        "query-encoder": ("QueryEncoder", MoodyEncoderFactory("q")),
        "passage-encoder": ("PassageEncoder", MoodyEncoderFactory("p")),
    }
    stop = threading.Event()
    work = (stop, settings, applications, lambda: print("ready", flush=True))  # noqa: T201 - the test waits for it
    thread = threading.Thread(target=serve_until, args=work)
    signal.signal(signal.SIGTERM, lambda *_: (signal.alarm(0), stop.set()))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
