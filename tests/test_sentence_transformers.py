"""Folders that sentence-transformers writes: pooling, projection, prompts, limits; the same embeddings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from encoder.checkpoint import load_model
from encoder.errors import CheckpointError
from encoder.fingerprint import model_fingerprint
from encoder.layouts.opening import open_model
from encoder.text_encoder import TextEncoder
from encoder.tokenizer import Tokenizer
from services.encoding.model_folder import check_model
from tests import upstream

INSTRUCTION = "Instruct: a b c\nQuery: "
TOLERANCE = 1e-4
TEXTS = ["a b c d", "q", "p o n m l k j i h g f e d c b a"]


def write(
    folder: Path,
    *,
    pooling: str = "lasttoken",
    dense: Dense | None = None,
    prompts: dict[str, str] | None = None,
    eos: bool = True,
) -> SentenceTransformer:
    base = folder.parent / "base"
    upstream.mamba2(head=False).save_pretrained(base)
    upstream.write_tokenizer(base, bos=True, eos=eos)
    modules = [
        Transformer(str(base), max_seq_length=300),
        Pooling(32, pooling),
        *([dense] if dense else []),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu")
    model.save(str(folder), create_model_card=False)
    return model


def encoder(folder: Path) -> TextEncoder:
    return TextEncoder(load_model(folder), Tokenizer.load(folder), model_fingerprint(folder), torch.float32)


@pytest.mark.parametrize("pooling", ["lasttoken", "mean"])
@pytest.mark.parametrize("bias", [None, False, True], ids=["no Dense", "Dense", "Dense with bias"])
def test_embeddings_are_those_of_sentence_transformers(tmp_path: Path, pooling: str, bias: bool | None) -> None:
    dense = None if bias is None else Dense(32, 24, bias=bias, activation_function=torch.nn.Identity())
    theirs = write(tmp_path / "model", pooling=pooling, dense=dense, prompts={"query": INSTRUCTION})
    # One text at a time: their right padding is read by what comes after it.
    queries = np.array([theirs.encode_query(text) for text in TEXTS])
    passages = np.array([theirs.encode_document(text) for text in TEXTS])
    ours = encoder(tmp_path / "model")
    assert np.abs(ours.encode_queries(TEXTS).embeddings - queries).max() < TOLERANCE
    assert np.abs(ours.encode_passages(TEXTS).embeddings - passages).max() < TOLERANCE
    assert np.abs(queries - passages).max() > 0.01
    config = open_model(tmp_path / "model").config
    assert config.query_prompt == INSTRUCTION
    assert config.passage_prompt == ""
    assert config.pooling == ("last" if pooling == "lasttoken" else "mean")
    assert (config.bos_token, config.eos_token) == ("<s>", "</s>")
    assert config.passage_tokens_max == config.query_tokens_max == 300
    assert (config.projection_dim, config.projection_bias) == (None if dense is None else 24, bias is True)


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({}, None, ("", "")),
        ({"query": "q: ", "document": "d: "}, None, ("q: ", "d: ")),
        ({"query": "q: ", "document": "", "passage": "p: "}, None, ("q: ", "p: ")),
        ({"query": "", "document": "", "web_search_query": "w: ", "sts_query": "s: "}, None, ("w: ", "")),
        ({"sts_query": "s: "}, "sts_query", ("s: ", "s: ")),
        ({"query": "", "document": "", "sts_query": "s: "}, "sts_query", ("", "")),
        ({"query": "q: ", "document": "", "other": "o: "}, "other", ("q: ", "")),
    ],
)
def test_prompts_are_found_by_their_names(
    tmp_path: Path, prompts: dict[str, str], default: str | None, expected: tuple[str, str]
) -> None:
    write(tmp_path / "model")
    path = tmp_path / "model" / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": prompts, "default_prompt_name": default}))
    config = open_model(tmp_path / "model").config
    assert (config.query_prompt, config.passage_prompt) == expected
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    if "web_search_query" not in prompts:  # a name that they use only where they are told to
        encode = theirs.encode_query if "query" in prompts else theirs.encode
        found = encoder(tmp_path / "model").encode_queries(TEXTS[:1]).embeddings
        assert np.abs(encode(TEXTS[0]) - found).max() < TOLERANCE


def test_the_transformer_may_be_in_a_folder_of_its_own(tmp_path: Path) -> None:
    """As releases before version 5 wrote it, tokenizer beside the transformer, pooling as switches."""
    theirs = write(tmp_path / "model", prompts={"query": INSTRUCTION})
    folder = tmp_path / "model"
    inner = folder / "0_Transformer"
    inner.mkdir()
    moved = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"]
    for name in moved:
        (folder / name).rename(inner / name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0] |= {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps(modules))
    switches = {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | switches))
    (inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 123, "do_lower_case": False}))
    config, fingerprint = check_model(folder)
    assert (config.pooling, config.passage_tokens_max, config.name) == ("last", 123, "model")
    assert fingerprint == model_fingerprint(folder)
    expected = np.array([theirs.encode_document(text) for text in TEXTS])
    assert np.abs(encoder(folder).encode_passages(TEXTS).embeddings - expected).max() < TOLERANCE


def test_a_repositorys_own_classes_are_read_for_what_they_are(tmp_path: Path) -> None:
    """As the public Mamba-2 embedders come: their code is not run, their tensors are Mamba-2's."""
    write(tmp_path / "model")
    upstream.edit_json(
        tmp_path / "model" / "config.json",
        model_type="chunked_mamba2",
        auto_map={"AutoModel": "modeling.ChunkedMamba2Model"},
    )
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    modules[0]["type"] = "chunked.ChunkedTransformer"
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    assert load_model(tmp_path / "model").config.architecture == "mamba2"
    upstream.edit_json(tmp_path / "model" / "config.json", auto_map=None)
    with pytest.raises(CheckpointError, match="model_type is 'chunked_mamba2'"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, ["pooling_mode", "'cls'"]),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "max"]}, ["pooling_mode", "max"]),
        ("1_Pooling/config.json", {"embedding_dimension": 64}, ["embedding_dimension", "64"]),
        (
            "1_Pooling/config.json",
            {"pooling_mode": None, "pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True},
            ["pooling_mode_mean_tokens", "several poolings"],
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode": "mean", "include_prompt": False},
            ["include_prompt", "False"],
        ),
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Tanh"},
            ["activation_function", "Tanh"],
        ),
        ("2_Dense/config.json", {"activation_function": None}, ["activation_function", "Tanh"]),
        ("2_Dense/config.json", {"use_residual": True}, ["use_residual"]),
        ("2_Dense/config.json", {"in_features": 31}, ["in_features", "31"]),
        ("2_Dense/config.json", {"module_output_name": "token_embeddings"}, ["module_output_name"]),
        ("config_sentence_transformers.json", {"default_prompt_name": "gone"}, ["default_prompt_name", "'gone'"]),
        ("config_sentence_transformers.json", {"truncate_dim": 16}, ["truncate_dim", "16"]),
        ("config.json", {"model_type": "bert"}, ["model_type", "'bert'"]),
    ],
)
def test_what_is_not_computed_is_refused_by_file_and_key(
    tmp_path: Path, file: str, changes: dict[str, Any], words: list[str]
) -> None:
    dense = Dense(32, 24, activation_function=torch.nn.Identity())
    write(tmp_path / "model", dense=dense, prompts={"query": INSTRUCTION})
    path = tmp_path / "model" / file
    upstream.edit_json(path, **changes)
    with pytest.raises(CheckpointError) as caught:
        open_model(tmp_path / "model")
    assert str(path) in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (["Transformer", "Normalize", "Pooling"], "in this order"),
        (["Transformer"], "in this order"),
        (["Transformer", "Pooling", "Dense", "Dense"], "in this order"),
        (["Transformer", "Pooling", "LayerNorm"], r"\[2\]\.type is 'x\.LayerNorm'"),
        ([], "names no modules"),
    ],
)
def test_modules_that_cannot_be_loaded(tmp_path: Path, kinds: list[str], words: str) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "", "type": f"x.{kind}"} for kind in kinds]))
    with pytest.raises(CheckpointError, match=words) as caught:
        open_model(tmp_path)
    assert str(tmp_path / "modules.json") in str(caught.value)


def test_a_module_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "../other", "type": "x.Transformer"}]))
    with pytest.raises(CheckpointError, match=r"\[0\]\.path is '\.\./other'"):
        open_model(tmp_path)


def test_other_similarities_need_embeddings_of_length_one(tmp_path: Path) -> None:
    write(tmp_path / "model")
    settings = tmp_path / "model" / "config_sentence_transformers.json"
    upstream.edit_json(settings, similarity_fn_name="dot")
    assert open_model(tmp_path / "model").config.pooling == "last"
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules[:-1]))
    with pytest.raises(CheckpointError, match=r"similarity_fn_name is 'dot'"):
        open_model(tmp_path / "model")
    upstream.edit_json(settings, similarity_fn_name="cosine")
    assert open_model(tmp_path / "model").config.pooling == "last"


def test_a_projection_without_its_weights(tmp_path: Path) -> None:
    write(tmp_path / "model", dense=Dense(32, 24, activation_function=torch.nn.Identity()))
    path = tmp_path / "model" / "2_Dense" / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file({"linear.weight": tensors["linear.weight"]}, path)
    with pytest.raises(CheckpointError, match=r"projection\.bias is missing") as caught:
        load_model(tmp_path / "model")
    assert str(path) in str(caught.value)
    path.unlink()
    with pytest.raises(CheckpointError, match="2_Dense holds no weights"):
        open_model(tmp_path / "model")
