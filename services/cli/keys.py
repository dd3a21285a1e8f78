"""``mamba-search keys``: the API keys of the services, in a file that they read."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoder.errors import InvalidInput

if TYPE_CHECKING:
    from services.door.keys import KeyEntry
    from services.door.principal import Role

_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN_S_MAX = 100 * 366 * 86_400

KeysFile = Annotated[
    Path | None,
    typer.Option("--file", help="File of the keys. Default: the setting MAMBASEARCH_KEYS_FILE."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a key.")]


def create(
    name: Annotated[str, typer.Argument(help="What the key is for, for people: at most 200 characters.")],
    role: Annotated[list[str], typer.Option(help="What its holder may do: search, ingest or admin. May be repeated.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Whose documents its holder sees; * is all. May be repeated.")
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(help="How long it is good: 90d, 12h, 30m, 2w. Default: until it is revoked.")
    ] = None,
    requests_per_s: Annotated[float, typer.Option(help="Requests a second it is good for. 0: no limit.")] = 0.0,
    tokens_per_s: Annotated[float, typer.Option(help="Tokens a second it is good for. 0: no limit.")] = 0.0,
    certificate: Annotated[
        str | None,
        typer.Option(help="No key: know the holder by a client certificate (mTLS) of this name."),
    ] = None,
    file: KeysFile = None,
    json_output: AsJson = False,
) -> None:
    """Make a key. It is printed, once: the file holds its hash, from which nobody can make it again."""
    from services.door.key_ring import create_key
    from services.door.keys import KeyWishes
    from services.door.principal import Limits

    tenants = tuple(dict.fromkeys(tenant or ["default"]))
    wishes = KeyWishes(
        name=name,
        roles=tuple(dict.fromkeys(_role(one) for one in role)),
        tenants="*" if "*" in tenants else tenants,
        expires_at=None if expires_in is None else time.time() + seconds_of(expires_in),
        limits=Limits(requests_per_s=requests_per_s, tokens_per_s=tokens_per_s),
        certificate=certificate,
    )
    path = _path(file)
    entry, key = create_key(path, wishes)
    if json_output:
        _print(_row(entry) | ({"key": key} if key else {}))
    elif key:
        _print_line(key)
        typer.echo(f"{_describe(entry)}\nIt stands nowhere else: keep it now. {path} holds its hash.", err=True)
    else:
        _print_line(_describe(entry))


def list_keys(file: KeysFile = None, json_output: AsJson = False) -> None:
    """Show the keys that there are: not the keys themselves, which nobody has."""
    from services.door.key_ring import read_key_file

    for entry in read_key_file(_path(file)).keys:
        if json_output:
            _print(_row(entry))
        else:
            _print_line(_describe(entry))


def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key, as `keys list` shows it.")], file: KeysFile = None
) -> None:
    """Have a key be good no more: services that run refuse it a second later."""
    from services.door.key_ring import revoke_key

    _print_line(f"revoked: {_describe(revoke_key(_path(file), key_id))}")


def seconds_of(span: str) -> float:
    """Read a span of time, 90d; :class:`InvalidInput` for what is none."""
    found = _SPAN.fullmatch(span)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= _SPAN_S_MAX:
        raise InvalidInput("expires_in", f"expires_in is {span[:40]!r}; give a number with s, m, h, d or w: 90d.")
    return seconds


def _role(name: str) -> Role:
    from services.door.principal import Role

    try:
        return Role(name)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise InvalidInput("role", f"role is {name[:40]!r}; {known} are known.") from None


def _path(file: Path | None) -> Path:
    from services.door.settings import KeysFileSettings

    path = KeysFileSettings.load({"keys_file": file} if file else {}).keys_file
    if path is None:
        raise InvalidInput("file", "No file of keys is named; give --file, or set MAMBASEARCH_KEYS_FILE.")
    return path


def _describe(entry: KeyEntry) -> str:
    who = f"certificate {entry.certificate}" if entry.certificate else "key"
    tenants = "all tenants" if entry.tenants == "*" else f"tenants {', '.join(entry.tenants)}"
    until = "" if entry.expires_at is None else f", {_until(entry.expires_at)}"
    roles = ", ".join(role.value for role in entry.roles)
    return f"{entry.id}  {who}  {roles}  {tenants}{until}  {json.dumps(entry.name, ensure_ascii=False)}"


def _until(expires_at: float) -> str:
    at = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="seconds")
    return f"expired at {at}" if expires_at <= time.time() else f"good until {at}"


def _row(entry: KeyEntry) -> dict[str, object]:
    return entry.model_dump(mode="json", exclude={"hash"}, exclude_none=True)


def _print(row: dict[str, object]) -> None:
    _print_line(json.dumps(row, ensure_ascii=False))


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
