"""A gRPC server in a process of its own, as it may crash: prints its port, and looks at its certificate all the time.

python -m tests.security.tls_server CERT KEY
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

import grpc

from services.door.certificates import CertificateFiles, ServerCertificates


async def serve(files: CertificateFiles) -> None:
    hours = itertools.count()
    certificates = ServerCertificates(files, now=lambda: 3600.0 * next(hours))
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", certificates.grpc_credentials())
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(CertificateFiles(Path(sys.argv[1]), Path(sys.argv[2]))))
