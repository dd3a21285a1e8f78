"""A real model's document, here and over gRPC: one pass, in pieces, and continued."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from encoder.client import EncoderClient
from encoder.errors import FingerprintMismatch, InvalidInput
from encoder.local import LocalEncoder
from tests.float32_encoder import load_float32
from tests.replica_serving import serving
from tests.tiny_model import save_tiny_model

IDS = np.random.default_rng(1).integers(0, 30_000, 3000)
# Some chunks are short: random weights forget fast, and only these know anything of what came before them.
ENDS = np.array([400, 402, 407, 1100, 2050, 2053, 2900, 3000])
TOLERANCE = 1e-4


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalEncoder]:
    encoder = load_float32(save_tiny_model(tmp_path / "tiny"))
    yield encoder
    await encoder.close()


@pytest.fixture
async def client(local: LocalEncoder) -> AsyncIterator[EncoderClient]:
    async with serving(local, batch_tokens=256) as served:
        client = EncoderClient(served.target)
        yield client
        await client.close()


async def test_one_pass_over_the_wire_is_one_pass_here(local: LocalEncoder, client: EncoderClient) -> None:
    here, there = await local.encode_document(IDS, ENDS), await client.encode_document(IDS, ENDS)
    np.testing.assert_allclose(there.embeddings, here.embeddings, atol=TOLERANCE)
    np.testing.assert_allclose(np.linalg.norm(there.embeddings, axis=1), 1, atol=1e-5)
    assert there.token_count == here.token_count == len(IDS) + len(ENDS)
    alone = await client.encode_tokenized_passages([IDS[:400].tolist(), IDS[400:402].tolist()])
    np.testing.assert_allclose(alone.embeddings[0], here.embeddings[0], atol=TOLERANCE)
    assert np.abs(alone.embeddings[1] - here.embeddings[1]).max() > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("cut", "context_matters"), [(1, False), (401, True), (700, False), (2051, True), (2999, False)]
)
async def test_a_document_continued_is_the_whole_document(
    local: LocalEncoder, client: EncoderClient, cut: int, context_matters: bool
) -> None:
    whole = await local.encode_document(IDS, ENDS)
    kept = int(np.searchsorted(ENDS, cut))  # chunks before the one that is cut off, and read anew
    begun = await client.encode_document(IDS[:cut], [*ENDS[:kept], cut], keep_state=True)
    last = int(ENDS[kept - 1]) if kept else 0
    rest = await client.encode_document(IDS[last:], ENDS[kept:] - last, state=begun.state, keep_state=True)
    found = np.concatenate([begun.embeddings[:kept], rest.embeddings])
    np.testing.assert_allclose(found, whole.embeddings, atol=TOLERANCE)
    assert rest.state is not None
    fresh = await client.encode_document(IDS[last:], ENDS[kept:] - last)
    assert (np.abs(fresh.embeddings - rest.embeddings).max() > 10 * TOLERANCE) == context_matters


async def test_faults_are_told_as_here(local: LocalEncoder, client: EncoderClient, tmp_path: Path) -> None:
    other = load_float32(save_tiny_model(tmp_path / "other", seed=1))
    begun = await other.encode_document(IDS, ENDS, keep_state=True)
    await other.close()
    assert begun.state is not None
    names = [(await encoder.info()).fingerprint for encoder in (other, local)]
    for encoder in (local, client):
        with pytest.raises(FingerprintMismatch, match=f"{names[0]}.*{names[1]}"):
            await encoder.encode_document(IDS, ENDS, state=begun.state)
        with pytest.raises(InvalidInput, match="state"):
            await encoder.encode_document(IDS, ENDS, state=begun.state[:-9])
        ids = IDS.copy()
        ids[2500] = 2**31
        with pytest.raises(InvalidInput, match=r"token_ids\[2500\] is 2147483648; .*vocabulary") as refusal:
            await encoder.encode_document(ids, ENDS)
        assert refusal.value.field == "token_ids[2500]"
