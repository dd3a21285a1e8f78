"""Embeddings as OpenAI's API gives them, so that its clients can be pointed here."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from encoder.errors import InvalidInput
from encoder.interface import Encoded, Encoder, EncoderInfo
from services.http.problems import Problem

# As OpenAI has it.
INPUTS_MAX = 2048


class EmbeddingsRequest(BaseModel):
    """What to encode, in OpenAI's words."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    input: str | list[str] | list[int] | list[list[int]] = Field(
        description=f"A text, 1 to {INPUTS_MAX} texts, or the same as ids of this model's own tokenizer, without "
        "special tokens. Ids of another tokenizer, such as OpenAI's, mean other words: send texts (langchain: "
        "check_embedding_ctx_length=False)."
    )
    model: str = Field(description="The name of the model that is served.")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Numbers, or the bytes of little-endian float32 numbers as base64."
    )
    dimensions: int | None = Field(
        None, description="Refused unless it is the length that the model's embeddings have."
    )
    input_type: Literal["passage", "query"] = Field(
        "passage",
        description="The role in which a text is read: passage, a text to be found (the default), or query, a question "
        "to find it by. A field of our own.",
    )
    user: str | None = Field(None, description="Taken, as OpenAI's clients may send it, and used for nothing.")


class Embedding(BaseModel):
    """One embedding."""

    object: Literal["embedding"] = "embedding"
    index: int = Field(description="The place of its text in the input, from 0.")
    embedding: list[float] | str = Field(description="Numbers, or base64; of length 1 as a vector.")


class Usage(BaseModel):
    """What was read."""

    prompt_tokens: int = Field(description="Tokens of all inputs, prompts and end-of-sequence tokens included.")
    total_tokens: int = Field(description="The same.")


class EmbeddingsResponse(BaseModel):
    """Embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


async def embed(encoder: Encoder, request: EmbeddingsRequest) -> tuple[dict[str, Any], int]:
    """Encode what a request asks for; gives the answer, and the tokens that it cost.

    :class:`InvalidInput` names a field of the request; :class:`Problem` where it names another model.
    """
    info = await encoder.info()
    _check(request, info)
    encoded = await _encode(encoder, request)
    tokens = sum(encoded.token_counts)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": _written(row, request.encoding_format)}
            for place, row in enumerate(encoded.embeddings)
        ],
        "model": info.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return answer, tokens


def _check(request: EmbeddingsRequest, info: EncoderInfo) -> None:
    if request.model != info.model:
        message = f"model is {request.model[:80]!r}, which is not served here; {info.model!r} is."
        raise Problem(404, "NOT_FOUND", message, "model")
    if request.dimensions not in {None, info.dimension}:
        message = f"dimensions is {request.dimensions}; this model's embeddings have {info.dimension}, leave it out."
        raise InvalidInput("dimensions", message)
    if isinstance(request.input, list) and not 1 <= len(request.input) <= _inputs_max(request):
        raise InvalidInput("input", f"input has {len(request.input)} entries; 1 to {INPUTS_MAX} are allowed.")


def _inputs_max(request: EmbeddingsRequest) -> int:
    # One text as ids may be as long as the encoder allows, which it says itself.
    one_text = isinstance(request.input, list) and isinstance(request.input[0] if request.input else None, int)
    return len(request.input) if one_text else INPUTS_MAX


async def _encode(encoder: Encoder, request: EmbeddingsRequest) -> Encoded:
    texts = (
        [request.input] if isinstance(request.input, str) else [text for text in request.input if isinstance(text, str)]
    )
    try:
        if not texts:
            return await encoder.encode_tokenized_passages(_ids(request))
        if request.input_type == "query":
            return await encoder.encode_queries(texts)
        return await encoder.encode_passages(texts)
    except InvalidInput as error:
        name = error.field.replace("queries", "input", 1).replace("passages", "input", 1)
        raise InvalidInput(name, str(error).replace(error.field, name)) from None


def _ids(request: EmbeddingsRequest) -> list[list[int]]:
    if request.input_type == "query":
        raise InvalidInput("input", "input is token ids, which are read as passages alone; send a query as text.")
    assert isinstance(request.input, list)
    one = [entry for entry in request.input if isinstance(entry, int)]
    several = [entry for entry in request.input if isinstance(entry, list)]
    return [one] if one else several


def _written(row: NDArray[np.float32], encoding_format: str) -> list[float] | str:
    if encoding_format == "float":
        return [float(number) for number in row]
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
