"""A chat API that answers, is busy, refuses, fails, falls silent or breaks off."""

import asyncio
import re
from contextlib import aclosing
from pathlib import Path

import pytest

from encoder.errors import InvalidInput, MambaSearchError, Overloaded, TimedOut, Unavailable
from services.asking import chat, event_stream
from services.asking.chat import ChatModel
from services.asking.settings import LlmSettings
from tests.asking.llm_server import LlmServer, Reply, llm_server

MESSAGES = [{"role": "user", "content": "Why?"}]
BUSY = Reply(status=429, body='{"error": {"message": "slow down"}}', headers={"Retry-After": "0"})
BROKEN = Reply(status=503, body="<html>\n upstream </html>")


def ask(server: LlmServer | str, **settings: object) -> tuple[str, str]:
    """Give the whole answer, and why it ended."""
    url = server if isinstance(server, str) else server.url

    async def run() -> tuple[str, str]:
        model = ChatModel(LlmSettings(**{"llm_url": url, "llm_model": "m", **settings}))  # type: ignore[arg-type]
        try:
            async with aclosing(model.answer(MESSAGES)) as parts:
                found = [part async for part in parts]
        finally:
            await model.close()
        return "".join(part.text for part in found), found[-1].end if found else ""

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "RETRY_AFTER_DEFAULT_S", 0.0)


def test_an_answer_comes_in_pieces_and_the_request_is_what_apis_know() -> None:
    with llm_server(Reply(["Beca", "use 日本", " [1]."])) as server:
        answer, _ = ask(server, llm_answer_tokens_max=99)
    assert answer == "Because 日本 [1]."
    assert server.requests == [{"model": "m", "messages": MESSAGES, "stream": True, "temperature": 0, "max_tokens": 99}]
    assert "authorization" not in server.headers[0]


def test_the_key_is_sent_from_the_setting_or_its_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-file\n")
    with llm_server(Reply(["yes"])) as server:
        ask(server, llm_api_key="sk-set")
        ask(server, llm_api_key_file=tmp_path / "key")
    assert [each["authorization"] for each in server.headers] == ["Bearer sk-set", "Bearer sk-file"]


@pytest.mark.parametrize("replies", [[BUSY, Reply(["yes"])], [BROKEN, BUSY, Reply(["yes"])]])
def test_it_is_asked_again_where_it_was_busy_or_failed(replies: list[Reply]) -> None:
    with llm_server(*replies) as server:
        assert ask(server)[0] == "yes"
    assert len(server.requests) == len(replies)


@pytest.mark.parametrize(
    ("reply", "kind", "message"),
    [
        (BUSY, Overloaded, r"is busy \(HTTP 429: slow down\); try again in 0 s"),
        (BROKEN, Unavailable, r"failed \(HTTP 503: <html> upstream </html>\)"),
        (
            Reply(status=401, body='{"error": "bad key"}'),
            InvalidInput,
            r"refuses the key \(HTTP 401: bad key\); set MAMB",
        ),
        (Reply(status=404, body='{"error": {"message": "no m"}}'), InvalidInput, r"no model m .*ollama pull m"),
        (
            Reply(status=400, body='{"error": {"message": "maximum context length is 2048"}}'),
            InvalidInput,
            r"too long for m .*llm_context_tokens is 3000: give fewer with --context-tokens",
        ),
        (Reply(status=413), InvalidInput, "too long for m"),
        (Reply(status=400, body="temperature"), MambaSearchError, r"refuses the request \(HTTP 400: temperature\)"),
        (Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}), MambaSearchError, "HTTP 302: no reason given"),
        (Reply(["Half an"], end=""), Unavailable, "broke off after 7 characters: it ended in the midst"),
        (Reply(["Half"], end="", raw="data: {nonsense\n\n"), Unavailable, "broke off after 4 .*an event is no JSON"),
        (Reply(["Half"], end="", raw="data: [1]\n\n"), Unavailable, "an event is no object"),
        (Reply([], end="", raw='data: {"choices": [7]}\n\n'), Unavailable, "an event is not of a chat"),
        (
            Reply(["Half"], raw='data: {"error": {"message": "out of memory"}}\n\n'),
            Unavailable,
            "broke off after 4 characters: the model server says: out of memory",
        ),
    ],
)
def test_a_failure_says_what_to_do(reply: Reply, kind: type[MambaSearchError], message: str) -> None:
    with llm_server(reply) as server, pytest.raises(kind, match=message) as failure:
        ask(server, llm_attempts_max=2)
    assert type(failure.value) is kind
    assert "\n" not in str(failure.value)
    retried = kind in (Overloaded, Unavailable) and "Half" not in "".join(reply.pieces)
    assert len(server.requests) == (2 if retried else 1)


def test_a_server_that_wants_a_long_wait_is_not_waited_for() -> None:
    reply = Reply(status=429, headers={"Retry-After": "3600"})
    with llm_server(reply) as server, pytest.raises(Overloaded, match="try again in 3600 s") as failure:
        ask(server)
    assert failure.value.retry_after_s == 3600
    assert len(server.requests) == 1


def test_silence_has_an_end() -> None:
    with llm_server(Reply(["never"], delay_s=30)) as server, pytest.raises(TimedOut, match=r"silent for 0\.2 s"):
        ask(server, llm_timeout_s=0.2)


def test_nobody_is_there() -> None:
    with pytest.raises(Unavailable, match=r"No model server answers at http://127\.0\.0\.1:1/v1 .*ollama serve"):
        ask("http://127.0.0.1:1/v1", llm_attempts_max=1)


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "ANSWER_CHARS_MAX", 100)
    monkeypatch.setattr(event_stream, "LINE_CHARS_MAX", 1000)
    with llm_server(Reply(["x" * 60, "y" * 60])) as server, pytest.raises(Unavailable, match="over 100 characters"):
        ask(server)
    endless = Reply([], raw="data: " + "x" * 500_000)
    with llm_server(endless) as server, pytest.raises(Unavailable, match="a line has over 1,000 characters"):
        ask(server, llm_attempts_max=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"llm_url": "http://models.example.org/v1", "llm_api_key": "k"}, "unencrypted; give an https address"),
        ({"llm_url": "ftp://x"}, "llm_url is 'ftp://x'"),
        ({"llm_url": "https://user:password@x/v1"}, "llm_url is"),
        ({"llm_context_tokens": 1}, "greater than or equal to 128"),
        ({"llm_api_key": "a", "llm_api_key_file": "b"}, "exclude each other"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        LlmSettings.load(given)


@pytest.mark.parametrize("content", [b"", b"two words\n", "schlüssel".encode(), b"x" * 9000])
def test_a_file_that_holds_no_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="llm_api_key_file") as failure:
        ChatModel(LlmSettings(llm_api_key_file=path))
    assert "two words" not in str(failure.value)
    with pytest.raises(InvalidInput, match=re.escape("cannot be read (No such file or directory)")):
        ChatModel(LlmSettings(llm_api_key_file=tmp_path / "none"))


def test_a_key_is_not_shown() -> None:
    assert "sk-secret" not in repr(LlmSettings(llm_api_key="sk-secret"))  # type: ignore[arg-type]
