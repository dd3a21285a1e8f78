"""The scan of Mamba-2 with every decay split into a factor of its row and one of its column: for inference on a CPU.

:func:`encoder.scan.chunked_scan` weighs token j for token i, head by head, with exp(decay[i] - decay[j]). Here that is
exp(decay[i] - m) * exp(m - decay[j]), m the decay in the middle of the chunk. The second factor scales the inputs, the
first the outputs, and what is left between them, C[i] . B[j], is the same for all heads of a group: one product of
matrices for all heads, and a tenth of the element-wise work. States, too, are taken at the middles of their chunks, so
that one small matrix per head carries them across all chunks at once. Letters as in ``encoder/scan.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encoder.scan import CHUNK_SIZE, SequenceMarks, chunk_size_for, pad_to_chunks

# A factor stays below exp(60), in bfloat16 and float32 alike far from overflow; what decays faster goes another way.
_RANGE_MAX = 120.0


def factored_scan(
    x: Tensor,
    dt: Tensor,
    a: Tensor,
    b_in: Tensor,
    c_out: Tensor,
    state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    *,
    keep_state: bool = True,
) -> tuple[Tensor, Tensor | None] | None:
    """Scan as :func:`encoder.scan.reference_scan` does, or give None where a head decays too fast for the factors.

    ``seq_idx`` excludes ``state``. Without ``keep_state`` there is no last state.
    """
    length = x.shape[1]
    # A short query is one chunk of its own length: filling it up to a rounder one costs four operations a layer, which
    # only oneDNN's bfloat16 products repay.
    chunk_size = length if x.dtype == torch.float32 and length <= CHUNK_SIZE else chunk_size_for(length)
    x, dt, b_in, c_out, seq_idx = pad_to_chunks(x, dt, b_in, c_out, seq_idx, chunk_size)
    x, dt, b_in, c_out = (t.unflatten(1, (-1, chunk_size)) for t in (x, dt, b_in, c_out))  # (b, c, q, ...)
    decay = torch.cumsum(dt * a, dim=2)  # (b, c, q, h): log of the decay from the chunk's start
    total = decay[:, :, -1]  # (b, c, h)
    if total.amin() < -_RANGE_MAX:
        return None
    marks = None if seq_idx is None else SequenceMarks(seq_idx.unflatten(1, (-1, chunk_size)))
    middle = total[:, :, None] / 2  # (b, c, 1, h)
    of_rows = torch.exp(decay - middle).to(x.dtype)[..., None]  # (b, c, q, h, 1)
    of_columns = (torch.exp(middle - decay) * dt).to(x.dtype)[..., None]  # (b, c, q, h, 1)
    inputs = _by_group(x * of_columns, b_in.shape[3])  # (b, c, g, q, h/g * p)
    b_in, c_out = b_in.transpose(2, 3), c_out.transpose(2, 3)  # (b, c, g, q, n)

    scores = torch.matmul(c_out, b_in.transpose(-1, -2)).tril_()  # (b, c, g, q, q)
    if marks is not None:
        scores = scores.masked_fill_(~marks.same[:, :, None], 0.0)
    y = torch.matmul(scores, inputs)  # (b, c, g, q, h/g * p)
    last = None
    if x.shape[1] > 1 or state is not None or keep_state:
        if marks is not None:
            b_in = b_in * marks.with_last[:, :, None, :, None].to(x.dtype)
            c_out = c_out * marks.with_before[:, :, None, :, None].to(x.dtype)
        added = torch.matmul(inputs.transpose(-1, -2), b_in)  # (b, c, g, h/g * p, n)
        carried, last = _carry(added.view(*total.shape, -1, added.shape[-1]), total, state, marks)
        y = _add_product(y, c_out, carried.view(added.shape).transpose(-1, -2))
    y = y.transpose(2, 3).reshape(x.shape).mul_(of_rows)
    return y.flatten(1, 2)[:, :length], last if keep_state else None


def _by_group(x: Tensor, groups: int) -> Tensor:
    """Lay heads of a group side by side: ``(b, c, q, h, p)`` to ``(b, c, g, q, h/g * p)``."""
    grouped: Tensor = x.flatten(3).unflatten(3, (groups, -1)).transpose(2, 3)
    return grouped


def _add_product(y: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Add a batched product of matrices to ``y (b, c, g, ...)``."""
    total: Tensor = torch.baddbmm(y.flatten(0, 2), left.flatten(0, 2), right.flatten(0, 2)).view(y.shape)
    return total


def _carry(added: Tensor, total: Tensor, state: Tensor | None, marks: SequenceMarks | None) -> tuple[Tensor, Tensor]:
    """Carry the state from middle to middle of the chunks.

    ``added (b, c, h, p, n)`` is what each chunk adds, as it stands at the chunk's middle; ``total (b, c, h)`` the log
    of each chunk's decay. Returns the states before each chunk, as they would stand at its middle, in ``added``'s
    shape and dtype, and the last state ``(b, h, p, n)`` float32.
    """
    ends = torch.cumsum(total, dim=1)  # (b, c, h): log of the decay from the start of all
    starts, middles = ends - total, ends - total / 2
    to = torch.cat([starts, ends[:, -1:]], dim=1).transpose(1, 2)  # (b, h, c + 1)
    chunks = total.shape[1]
    earlier = torch.ones(chunks + 1, chunks, dtype=torch.bool).tril_(-1)
    if marks is not None:
        earlier = earlier & marks.linked[:, None]
    weights = torch.exp((to[..., None] - middles.transpose(1, 2)[..., None, :]).masked_fill_(~earlier, float("-inf")))
    flat = added.flatten(3).transpose(1, 2)  # (b, h, c, p * n)
    carried = torch.matmul(weights.to(added.dtype), flat).unflatten(-1, added.shape[-2:])  # (b, h, c + 1, p, n)
    before, last = carried[:, :, :-1].transpose(1, 2), carried[:, :, -1].float()
    if state is not None:
        before = before + torch.exp(starts).to(added.dtype)[..., None, None] * state.to(added.dtype)[:, None]
        last = last + torch.exp(ends[:, -1])[..., None, None] * state
    # From start to middle only here: with the way from an earlier middle it might be too little for a float.
    halves = torch.exp(total / 2).to(added.dtype)[..., None, None]
    return torch.mul(before, halves, out=torch.empty_like(added)), last
