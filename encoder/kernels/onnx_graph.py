"""A Mamba-2 encoder over short texts as one ONNX graph, its products in 8 bits. Letters: ``encoder/mamba.py``.

Each of ``b`` texts is ``l`` tokens wide, what is missing at its end filled up with any tokens: a layer reads from left
to right. They stand end to end, ``t`` is ``b * l``. The equations are those of ``encoder/kernels/short_texts.py`` (Dao
and Gu 2024, arXiv 2405.21060, the quadratic form). No operation looks at two texts.

Weights are whole numbers of 8 bits and a scale for each row, as a checkpoint of ours stores them; the weights of norms
stay with the activations, so that nothing is rounded anew. Activations get a scale for each token (vector-wise
quantization, Dettmers et al. 2022, arXiv 2208.07339). Those that enter ``out_proj`` have outliers 15 times as large as
the rest: there what rounding loses is rounded in turn, and multiplied in a second product. The least cosine of the
default model's embeddings to those in float32 is 0.9998; with one product there it would be 0.9994.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encoder.mamba import Block
from encoder.mixers import Mamba2Mixer
from encoder.model import EncoderModel
from encoder.model_config import ModelConfig
from encoder.weights import quantize_rows

RESIDUAL, ENDS, CAUSAL = "residual", "ends", "causal"  # inputs
EMBEDDINGS = "embeddings"  # the output
# An 8-bit matrix in bfloat16 is off by 0.002 of its norm at most, any other matrix rounded to 8 bits by 0.004 or more.
_ROUNDING_MAX = 1 / 400
_OPSET = 18
_IR_VERSION = 10
_CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
_NEVER = -1e30  # of exp, it makes 0


class NotCovered(Exception):
    """Says why a model cannot be such a graph."""


def build_graph(model: EncoderModel) -> bytes:
    """Give the model, which no path has been prepared for yet, as a serialized ``onnx.ModelProto``.

    Inputs: ``residual (t, d)`` float32, the tokens' embeddings; ``ends (b)`` int64, where in ``t`` each text ends;
    ``causal (l, l)`` float32, 1 on and above the diagonal, else 0. Output: ``embeddings``, a row of length 1 for each
    text. :class:`NotCovered` where weights are not those of an 8-bit checkpoint.
    """
    import onnx
    from onnx import helper

    config = model.config
    graph = _Graph()
    shared = _Shared(graph, config)
    residual, out = RESIDUAL, ""
    for number, block in enumerate(model.backbone.layers):
        assert isinstance(block, Block)
        norm = graph.constant(block.norm.weight)
        if out:
            residual, u = graph.add_and_norm(residual, out, norm, config.norm_eps)
        else:
            u = graph.norm(residual, norm, config.norm_eps)
        last = number == config.n_layers - 1
        residual, out = _layer(graph, shared, block, residual, u, ends_only=last)
    _, pooled = graph.add_and_norm(residual, out, graph.constant(model.backbone.norm_f.weight), config.norm_eps)
    if model.projection is not None:
        pooled = graph("MatMul", pooled, graph.constant(model.projection.weight.T))
        if model.projection.bias is not None:
            pooled = graph("Add", pooled, graph.constant(model.projection.bias))
    graph("LpNormalization", pooled, outputs=(EMBEDDINGS,), axis=-1, p=2)
    floats, ids = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info(RESIDUAL, floats, ["t", config.d_model]),
        helper.make_tensor_value_info(ENDS, ids, ["b"]),
        helper.make_tensor_value_info(CAUSAL, floats, ["l", "l"]),
    ]
    output = helper.make_tensor_value_info(EMBEDDINGS, floats, ["b", config.embedding_dim])
    proto = helper.make_graph(graph.nodes, "short texts", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
    serialized: bytes = helper.make_model(proto, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()
    return serialized


class _Graph:
    """Collects nodes and constants; called with an operator and the names of its inputs, gives that of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []  # onnx.NodeProto
        self.constants: list[Any] = []  # onnx.TensorProto

    def constant(self, value: Tensor | list[int]) -> str:
        """Keep a tensor, floating-point ones as float32, or a list of int64."""
        from onnx import TensorProto, helper

        tensor = torch.tensor(value) if isinstance(value, list) else value.detach()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        kind = {
            torch.float32: TensorProto.FLOAT,
            torch.int64: TensorProto.INT64,
            torch.int8: TensorProto.INT8,
            torch.uint8: TensorProto.UINT8,
        }[tensor.dtype]
        name = f"c{len(self.constants)}"
        raw = tensor.contiguous().numpy().tobytes()
        self.constants.append(helper.make_tensor(name, kind, tensor.shape, raw, raw=True))
        return name

    def number(self, value: float) -> str:
        return self.constant(torch.tensor(float(value)))

    def __call__(
        self,
        operator: str,
        *inputs: str,
        domain: str = "",
        outputs: tuple[str, ...] = (),
        **attributes: float | str | list[int],
    ) -> str:
        from onnx import helper

        names = outputs or (f"v{len(self.nodes)}",)
        node = helper.make_node(operator, inputs, names, domain=domain)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        return names[0]

    def split(self, value: str, sizes: list[int], axis: int) -> tuple[str, ...]:
        names = tuple(f"v{len(self.nodes)}_{part}" for part in range(len(sizes)))
        self("Split", value, self.constant(sizes), outputs=names, axis=axis)
        return names

    def reshape(self, value: str, *shape: int) -> str:
        """Give another shape; 0 stands for the size that the value has there, -1 for what is left."""
        return self("Reshape", value, self.constant(list(shape)))

    def silu(self, value: str) -> str:
        return self("QuickGelu", value, domain=_CONTRIB, alpha=1.0)

    def norm(self, value: str, weight: str, eps: float) -> str:
        return self("SimplifiedLayerNormalization", value, weight, axis=-1, epsilon=eps)

    def add_and_norm(self, residual: str, out: str, weight: str, eps: float) -> tuple[str, str]:
        """Give the sum and its norm."""
        names = (f"v{len(self.nodes)}", "", "", f"v{len(self.nodes)}_sum")
        operator = "SkipSimplifiedLayerNormalization"
        normed = self(operator, residual, out, weight, domain=_CONTRIB, outputs=names, epsilon=eps)
        return names[3], normed


class _Shared:
    """What all layers need: shapes, and the matrices that sum and mask the decays between a text's tokens."""

    def __init__(self, graph: _Graph, config: ModelConfig) -> None:
        b, l = graph("Shape", ENDS), graph("Shape", CAUSAL, start=0, end=1)
        one, heads = graph.constant([1]), graph.constant([config.n_heads])
        channels = graph.constant([config.d_inner + 2 * config.d_state])
        self.by_token = graph("Concat", b, l, heads, axis=0)  # b, l, h
        self.by_head = graph("Concat", graph.constant([-1]), l, axis=0)  # b h, l
        self.pairs = graph("Concat", b, heads, l, l, axis=0)  # b, h, l, l
        self.image = graph("Concat", b, one, l, channels, axis=0)  # b, 1, l, f
        rows = graph("Shape", RESIDUAL, start=0, end=1)
        self.zero_points = graph("Expand", graph.constant(torch.tensor(128, dtype=torch.uint8)), rows)  # (t)
        unit = graph.number(1)
        behind = graph("Sub", unit, CAUSAL)  # (l, l): 1 where the column comes before the row
        self.mask = graph("Reshape", graph("Mul", behind, graph.number(_NEVER)), graph.constant([-1]))  # (l l)
        self.diagonal = graph("Mul", CAUSAL, graph("Transpose", CAUSAL, perm=[1, 0]))  # (l, l)
        # The decay from token j to token i is the sum of those behind j up to i: (l, l l), columns j, i.
        after = graph("Unsqueeze", behind, graph.constant([2]))
        until = graph("Unsqueeze", CAUSAL, one)
        self.sums = graph.reshape(graph("Mul", after, until), 0, -1)


def _layer(graph: _Graph, shared: _Shared, block: Block, residual: str, u: str, *, ends_only: bool) -> tuple[str, str]:
    """Read ``u (t, d)``, the norm of the residual; give the residual and what is to be added, of all tokens or ends."""
    mixer = block.mixer
    assert isinstance(mixer, Mamba2Mixer)
    config = mixer.config
    e, heads = config.d_inner, config.n_heads
    projected = _product(graph, u, mixer.in_proj.weight, shared.zero_points)
    gate, mixed, steps = graph.split(projected, [e, mixer.conv_width, heads], 1)  # (t, e), (t, f), (t, h)
    dt = graph("Softplus", graph("Add", steps, graph.constant(mixer.dt_bias)))
    dt = graph("Transpose", graph("Reshape", dt, shared.by_token), perm=[0, 2, 1])  # (b, h, l)
    y = _scan(graph, shared, mixer, _convolve(graph, shared, mixer, mixed), dt)  # (t, e)
    zero_points = shared.zero_points
    if ends_only:
        y, gate, residual, zero_points = (graph("Gather", rows, ENDS) for rows in (y, gate, residual, zero_points))
    gated = graph("Mul", y, graph.silu(gate))
    normed = graph.norm(gated, graph.constant(mixer.norm.weight), config.norm_eps)
    return residual, _product(graph, normed, mixer.out_proj.weight, zero_points, twice=True)


def _product(graph: _Graph, x: str, weight: Tensor, zero_points: str, *, twice: bool = False) -> str:
    """Multiply ``x (t, in)``, rounded once or twice, by ``weight (out, in)``: ``(t, out)``."""
    values, scale = _eight_bits(weight)
    weights, scales = graph.constant(values.T), graph.constant(scale[:, 0])
    zero = graph.constant(torch.tensor(128, dtype=torch.uint8))

    def multiply(rounded: str, step: float) -> str:
        return graph("MatMulIntegerToFloat", rounded, weights, graph.number(step), scales, zero, domain=_CONTRIB)

    largest = graph("ReduceMax", graph("Abs", x), graph.constant([1]), keepdims=0)
    steps = graph("Mul", largest, graph.number(1 / 127))  # (t)
    rounded = graph("QuantizeLinear", x, steps, zero_points, axis=0)  # (t, in) uint8
    result = multiply(rounded, 1)
    if twice:
        lost = graph("Sub", x, graph("DequantizeLinear", rounded, steps, zero_points, axis=0))  # half a step at most
        finer = graph("QuantizeLinear", lost, graph("Mul", steps, graph.number(1 / 254)), zero_points, axis=0)
        result = graph("Add", result, multiply(finer, 1 / 254))
    return graph("Mul", result, graph("Unsqueeze", steps, graph.constant([1])))


def _eight_bits(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Give the int8 values ``(out, in)`` and scales ``(out, 1)`` that the checkpoint stored, or else fail."""
    exact = weight.detach().float()
    values = quantize_rows(exact)[0]
    whole = values.float()
    # In bfloat16 the largest value of a row is rounded like any other: all of the row say its scale better.
    scale = (exact * whole).sum(1, keepdim=True) / whole.square().sum(1, keepdim=True).clamp_min(1)
    if (exact - whole * scale).norm() > _ROUNDING_MAX * exact.norm():
        raise NotCovered("its matrices are not those of a checkpoint in 8 bits")
    return values, scale


def _convolve(graph: _Graph, shared: _Shared, mixer: Mamba2Mixer, mixed: str) -> str:
    """Convolve ``(t, f)`` causally per channel, then SiLU: ``(b, f, 1, l)``. In this shape it is vectorized."""
    assert mixer.conv1d.bias is not None  # nn.Conv1d made one
    taps = mixer.conv1d.weight.shape[-1]
    image = graph("Transpose", graph("Reshape", mixed, shared.image), perm=[0, 3, 1, 2])
    convolved = graph(
        "Conv",
        image,
        graph.constant(mixer.conv1d.weight[:, :, None]),
        graph.constant(mixer.conv1d.bias),
        group=mixer.conv_width,
        kernel_shape=[1, taps],
        pads=[0, taps - 1, 0, 0],
    )
    return graph.silu(convolved)


def _scan(graph: _Graph, shared: _Shared, mixer: Mamba2Mixer, convolved: str, dt: str) -> str:
    """Scan each text, ``convolved (b, f, 1, l)`` and ``dt (b, h, l)``: ``(t, e)``."""
    config = mixer.config
    e, heads, n = config.d_inner, config.n_heads, config.d_state
    x, b_in, c_out = graph.split(convolved, [e, n, n], 1)
    b_in, c_out = graph.reshape(b_in, 0, 1, n, -1), graph.reshape(c_out, 0, 1, n, -1)  # (b, 1, n, l)
    scores = graph("FusedMatMul", b_in, c_out, domain=_CONTRIB, transA=1)  # (b, 1, l, l): row j, column i
    a = graph.constant(-torch.exp(mixer.A_log.float())[:, None])
    decays = graph("Reshape", graph("Mul", dt, a), shared.by_head)
    decays = graph("Exp", graph("Gemm", decays, shared.sums, shared.mask))  # (b h, l l)
    weights = graph("Mul", graph("Reshape", decays, shared.pairs), scores)
    weights = graph("Mul", weights, graph("Unsqueeze", dt, graph.constant([3])))
    skip = graph("Mul", shared.diagonal, graph.constant(mixer.D[:, None, None]))
    weights = graph("Add", weights, skip)  # (b, h, l, l)
    y = graph("MatMul", graph.reshape(x, 0, heads, e // heads, -1), weights)  # (b, h, p, l)
    return graph.reshape(graph("Transpose", graph.reshape(y, 0, e, -1), perm=[0, 2, 1]), -1, e)
