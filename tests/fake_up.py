"""``up`` with parts that do nothing but answer health checks, or misbehave. Run as ``python -m tests.fake_up``.

Arguments: a folder, then for each part its name, port and behaviour: ``serve``; ``die`` (after a while); ``refuse`` (at
once); ``wait`` (never healthy); ``stubborn`` (ignores SIGTERM); ``breed`` (leaves a process in a session of its own).
"""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from encoder.errors import MambaSearchError
from services.grpc_server import GrpcServer, stop_signal
from services.machine import supervisor
from services.machine.children import Part
from services.settings import UpSettings
from services.status import exit_code


async def be_part(port: int, behaviour: str) -> None:
    stop = stop_signal()
    print("a line of the log", behaviour, flush=True)  # noqa: T201
    if behaviour == "refuse":
        sys.exit(6)
    server = GrpcServer("fake", lambda server: None, message_bytes_max=1024, calls_max=4)
    await server.start("127.0.0.1", port)
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "breed":
        subprocess.Popen(["sleep", "300"], start_new_session=True)  # noqa: ASYNC220
    await server.set_serving(behaviour != "wait")
    if behaviour == "die":
        await asyncio.sleep(1)
        sys.exit(1)
    await stop.wait()
    await server.stop()


def main() -> int:
    if sys.argv[1] == "part":
        asyncio.run(be_part(int(sys.argv[2]), sys.argv[3]))
        return 0
    settings = UpSettings.load({"data_dir": Path(sys.argv[1])})
    parts = []
    for name, port, behaviour in zip(*[iter(sys.argv[2:])] * 3, strict=True):
        # A module's name may not carry arguments: each part gets a module of its own.
        module = Path(sys.argv[1]).parent / f"fake_{name}.py"
        module.write_text(
            f"import sys\nfrom tests.fake_up import main\nsys.argv[1:] = ['part', '{port}', '{behaviour}']\nmain()\n"
        )
        parts.append(Part(name, f"fake_{name}", f"127.0.0.1:{port}"))
    supervisor.check = lambda settings: None
    supervisor.parts_of = lambda settings, ray_dir: (parts, settings.child_environment({}))
    try:
        asyncio.run(supervisor.up(settings, lambda line: print(line, flush=True)))  # noqa: T201
    except MambaSearchError as error:
        print(error, flush=True)  # noqa: T201
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
