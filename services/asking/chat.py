"""Asking a model behind an OpenAI-compatible chat API: one request, its answer in pieces, and clear failures."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import httpx

from encoder.errors import InvalidInput, MambaSearchError, Overloaded, TimedOut, Unavailable
from services.asking.event_stream import BrokenStream, Part, error_text, read_lines, read_parts
from services.asking.settings import LlmSettings

CONNECT_TIMEOUT_S = 10.0
RETRY_AFTER_DEFAULT_S = 1.0
RETRY_AFTER_MAX_S = 30.0  # a server that asks for more is told of, not waited for
ERROR_BYTES_MAX = 1 << 16


class ChatModel:
    """One model at one address. Redirects are not followed: the key is for the address that was given."""

    def __init__(self, settings: LlmSettings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Read the key; :class:`InvalidInput` where it cannot be."""
        self._settings = settings
        key = settings.llm_key()
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(settings.llm_timeout_s, connect=min(CONNECT_TIMEOUT_S, settings.llm_timeout_s)),
            transport=transport,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def answer(self, messages: Sequence[dict[str, str]]) -> AsyncGenerator[Part, None]:
        """Give the answer in pieces as it comes.

        Asked again, at most ``llm_attempts_max`` times in all, where the server is busy or fails before the first
        piece. :class:`InvalidInput` for a key, a model or a length that it refuses; :class:`Overloaded`,
        :class:`Unavailable` and :class:`TimedOut` as they say.
        """
        for attempt in range(1, self._settings.llm_attempts_max + 1):
            begun = False
            try:
                async with aclosing(self._ask(messages)) as parts:
                    async for part in parts:
                        begun = begun or bool(part.text)
                        yield part
            except (Overloaded, Unavailable) as error:
                wait_s = error.retry_after_s if isinstance(error, Overloaded) else RETRY_AFTER_DEFAULT_S * attempt
                if begun or attempt == self._settings.llm_attempts_max or wait_s > RETRY_AFTER_MAX_S:
                    raise
                await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))  # noqa: S311 - so that clients do not come at once
            else:
                return

    async def _ask(self, messages: Sequence[dict[str, str]]) -> AsyncGenerator[Part, None]:
        settings = self._settings
        url = f"{settings.llm_url.rstrip('/')}/chat/completions"
        body = {
            "model": settings.llm_model,
            "messages": list(messages),
            "stream": True,
            "temperature": 0,
            "max_tokens": settings.llm_answer_tokens_max,
        }
        read = 0
        try:
            async with self._client.stream("POST", url, json=body) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(response, await _start_of(response))
                async with aclosing(read_parts(read_lines(response.aiter_text()))) as parts:
                    async for part in parts:
                        read += len(part.text)
                        yield part
        except BrokenStream as error:
            raise Unavailable(
                f"The answer of the model server at {settings.llm_url} broke off after {read:,} characters: {error}."
            ) from None
        except httpx.ConnectError as error:
            raise Unavailable(
                f"No model server answers at {settings.llm_url} ({error}); start one (Ollama: `ollama serve`), or name "
                "another with --llm-url."
            ) from None
        except httpx.TimeoutException:
            raise TimedOut(
                f"The model server at {settings.llm_url} was silent for {settings.llm_timeout_s:g} s after {read:,} "
                "characters of its answer; try again, or allow more (MAMBASEARCH_LLM_TIMEOUT_S)."
            ) from None
        except (httpx.TransportError, httpx.DecodingError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"The connection to the model server at {settings.llm_url} broke after {read:,} characters of its "
                f"answer ({error or type(error).__name__})."
            ) from None

    def _refusal(self, response: httpx.Response, body: str) -> MambaSearchError:
        settings, status = self._settings, response.status_code
        where, reason = f"The model server at {settings.llm_url}", f"HTTP {status}: {body or 'no reason given'}"
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return InvalidInput(
                "llm_api_key",
                f"{where} refuses the key ({reason}); set MAMBASEARCH_LLM_API_KEY or MAMBASEARCH_LLM_API_KEY_FILE.",
            )
        if status == httpx.codes.NOT_FOUND:
            return InvalidInput(
                "llm_model",
                f"{where} has no model {settings.llm_model} ({reason}); load it (Ollama: `ollama pull "
                f"{settings.llm_model}`), or name another with --llm-model.",
            )
        if status == httpx.codes.TOO_MANY_REQUESTS:
            wait_s = _retry_after_s(response)
            return Overloaded(f"{where} is busy ({reason}); try again in {wait_s:g} s.", wait_s)
        if status == httpx.codes.REQUEST_ENTITY_TOO_LARGE or (
            status == httpx.codes.BAD_REQUEST and "context" in body.lower()
        ):
            return InvalidInput(
                "llm_context_tokens",
                f"The question and its passages are too long for {settings.llm_model} ({reason}); llm_context_tokens "
                f"is {settings.llm_context_tokens}: give fewer with --context-tokens.",
            )
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            return Unavailable(f"{where} failed ({reason}).")
        return MambaSearchError(f"{where} refuses the request ({reason}).")


async def _start_of(response: httpx.Response) -> str:
    """Read an error's message, of a body that may be anything."""
    data = b""
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > ERROR_BYTES_MAX:
            break
    text = data[:ERROR_BYTES_MAX].decode(errors="replace")
    try:
        return error_text(json.loads(text))
    except ValueError:
        return error_text(text)


def _retry_after_s(response: httpx.Response) -> float:
    """Read Retry-After in seconds; its other form, a date, is taken for the default."""
    try:
        return max(float(response.headers.get("retry-after", "")), 0.0)
    except ValueError:
        return RETRY_AFTER_DEFAULT_S
