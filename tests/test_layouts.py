"""Configurations of other libraries in our words, without torch; and every option that has to be refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoder.errors import CheckpointError
from encoder.fingerprint import model_fingerprint
from encoder.layouts.opening import open_model
from encoder.layouts.special_tokens import read_special_tokens
from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.sizes import SIZES
from services.encoding.model_folder import check_model
from tests import upstream

INDEX = "model.safetensors.index.json"
# As the published repository has it; special ids and norm_before_gate are not what the model was trained with.
CODESTRAL_HUGGING_FACE: dict[str, Any] = {
    "architectures": ["Mamba2ForCausalLM"],
    "bos_token_id": 0,
    "chunk_size": 256,
    "conv_kernel": 4,
    "eos_token_id": 0,
    "expand": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 8192,
    "layer_norm_epsilon": 1e-05,
    "model_type": "mamba2",
    "n_groups": 8,
    "norm_before_gate": True,
    "num_heads": 128,
    "num_hidden_layers": 64,
    "pad_token_id": 0,
    "residual_in_fp32": True,
    "rms_norm": True,
    "state_size": 128,
    "tie_word_embeddings": False,
    "time_step_limit": [0.0, float("inf")],
    "time_step_rank": 256,
    "use_bias": False,
    "use_conv_bias": True,
    "vocab_size": 32768,
}
CODESTRAL_MISTRAL = {
    "dim": 4096,
    "n_layers": 64,
    "vocab_size": 32768,
    "n_groups": 8,
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 1,
    "tie_embeddings": False,
    "model_type": "mamba",
}
MAMBA_130M = {
    "d_model": 768,
    "n_layer": 24,
    "vocab_size": 50277,
    "ssm_cfg": {},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
}
MAMBA2_1_3B = MAMBA_130M | {
    "d_intermediate": 0,
    "d_model": 2048,
    "n_layer": 48,
    "ssm_cfg": {"layer": "Mamba2"},
    "attn_layer_idx": [],
    "attn_cfg": {},
    "pad_vocab_size_multiple": 16,
    "tie_embeddings": True,
}


def write(folder: Path, file: str, values: dict[str, Any], weights: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(values))
    (folder / weights).touch()
    return folder


@pytest.mark.parametrize(
    ("size", "file", "values", "weights"),
    [
        ("mamba-130m", "config.json", MAMBA_130M, "pytorch_model.bin"),
        ("mamba2-1.3b", "config.json", MAMBA2_1_3B, "pytorch_model.bin"),
        ("codestral-7b", "config.json", CODESTRAL_HUGGING_FACE, "model.safetensors"),
        ("codestral-7b", "params.json", CODESTRAL_MISTRAL, "consolidated.safetensors"),
    ],
)
def test_published_configurations_are_the_named_sizes(
    tmp_path: Path, size: str, file: str, values: dict[str, Any], weights: str
) -> None:
    found = open_model(write(tmp_path / "some-model", file, values, weights))
    assert found.config.name == "some-model"
    assert found.config.model_copy(update={"name": size}) == SIZES[size]
    assert found.tokenizer_file is None


def test_what_transformers_writes_is_understood(tmp_path: Path) -> None:
    upstream.mamba1(time_step_rank=5).config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    config = open_model(tmp_path).config
    assert (config.architecture, config.d_model, config.n_layers, config.d_state) == ("mamba1", 32, 2, 8)
    assert config.time_step_rank == 5
    upstream.mamba2(layer_norm_epsilon=1e-6, n_groups=2).config.save_pretrained(tmp_path)
    config = open_model(tmp_path).config
    assert (config.architecture, config.head_dim, config.n_groups, config.norm_eps) == ("mamba2", 16, 2, 1e-6)


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("eos", [False, True])
def test_special_tokens_are_those_that_the_tokenizer_adds(tmp_path: Path, bos: bool, eos: bool) -> None:
    write(tmp_path, "config.json", CODESTRAL_HUGGING_FACE)
    path = upstream.write_tokenizer(tmp_path, bos=bos, eos=eos)
    config = open_model(tmp_path).config
    assert config.bos_token == ("<s>" if bos else None)
    assert config.eos_token == ("</s>" if eos else None)
    assert config.pooling == ("eos" if eos else "last")
    assert read_special_tokens(path) == (config.bos_token, config.eos_token)
    assert read_special_tokens(DEFAULT_MODEL_FOLDER / "tokenizer.json") == (None, None)


def test_more_special_tokens_than_one_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "config.json", CODESTRAL_HUGGING_FACE)
    path = upstream.write_tokenizer(tmp_path, bos=True)
    values = json.loads(path.read_text())
    values["post_processor"]["single"].insert(0, values["post_processor"]["single"][0])
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: post_processor wraps a text in \['<s>', '<s>'\]"):
        open_model(tmp_path)


HUGGING_FACE = ("config.json", CODESTRAL_HUGGING_FACE)
STATE_SPACES = ("config.json", MAMBA2_1_3B)
MISTRAL = ("params.json", CODESTRAL_MISTRAL)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (HUGGING_FACE, {"model_type": "falcon_mamba"}, ["model_type", "'falcon_mamba'", "'mamba' and 'mamba2'"]),
        (HUGGING_FACE, {"model_type": "bert"}, ["model_type", "'bert'"]),
        (HUGGING_FACE, {"use_bias": True}, ["use_bias", "True"]),
        (HUGGING_FACE, {"use_conv_bias": False}, ["use_conv_bias"]),
        (HUGGING_FACE, {"hidden_act": "relu"}, ["hidden_act", "'relu'"]),
        (HUGGING_FACE, {"time_step_limit": [0.001, 0.1]}, ["time_step_limit", "[0.001, 0.1]"]),
        (HUGGING_FACE, {"quantization_config": {"bits": 4}}, ["quantization_config"]),
        (HUGGING_FACE, {"num_heads": 127}, ["num_heads", "127"]),
        (HUGGING_FACE, {"hidden_size": "wide"}, ["hidden_size", "'wide'"]),
        (HUGGING_FACE, {"state_size": 0}, ["state_size", "0"]),
        (HUGGING_FACE, {"layer_norm_epsilon": -1}, ["layer_norm_epsilon", "-1"]),
        (HUGGING_FACE, {"n_groups": 3}, ["n_groups 3 does not divide"]),
        (STATE_SPACES, {"attn_layer_idx": [3, 9]}, ["attn_layer_idx", "attention"]),
        (STATE_SPACES, {"d_intermediate": 4096}, ["d_intermediate", "4096"]),
        (STATE_SPACES, {"rms_norm": False}, ["rms_norm"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba3"}}, ["ssm_cfg.layer", "'Mamba3'"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, ["ssm_cfg.D_has_hdim"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, ["ssm_cfg.norm_before_gate"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, ["ssm_cfg.rmsnorm"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba2", "d_ssm": 64}}, ["ssm_cfg.d_ssm"]),
        (STATE_SPACES, {"ssm_cfg": {"layer": "Mamba2", "dt_limit": [0, 1]}}, ["ssm_cfg.dt_limit"]),
        (STATE_SPACES, {"ssm_cfg": {"bias": True}}, ["ssm_cfg.bias"]),
        (STATE_SPACES, {"ssm_cfg": {"headdim": 64}}, ["ssm_cfg.headdim", "not known"]),
        (STATE_SPACES, {"ssm_cfg": {"expand": 1.5}}, ["ssm_cfg.expand", "1.5"]),
        (STATE_SPACES, {"ssm_cfg": []}, ["ssm_cfg", "object"]),
        (STATE_SPACES, {"n_experts": 4}, ["n_experts", "not known"]),
        (MISTRAL, {"model_type": "transformer"}, ["model_type", "'transformer'"]),
        (MISTRAL, {"rms_norm": False}, ["rms_norm"]),
        (MISTRAL, {"moe": {}}, ["moe", "not known"]),
        (MISTRAL, {"n_groups": None}, ["n_groups is missing"]),
    ],
)
def test_what_is_not_computed_is_refused_by_file_and_key(
    tmp_path: Path, kind: tuple[str, dict[str, Any]], changes: dict[str, Any], words: list[str]
) -> None:
    file, values = kind
    write(tmp_path, file, values, "consolidated.safetensors" if file == "params.json" else "model.safetensors")
    upstream.edit_json(tmp_path / file, **changes)
    with pytest.raises(CheckpointError) as caught:
        open_model(tmp_path)
    assert str(tmp_path / file) in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def lose_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def index_what_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


def index_outside(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))


def index_nothing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / INDEX).write_text("{}")


def break_the_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def make_the_config_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def lose_the_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lose_the_weights, ["holds no weights", "model.safetensors"]),
        (index_what_is_missing, [INDEX, "puts b into model-00002-of-00002.safetensors", "missing"]),
        (index_outside, [INDEX, "../secret.safetensors"]),
        (index_nothing, [INDEX, "weight_map"]),
        (break_the_config, ["config.json is not JSON"]),
        (make_the_config_a_list, ["config.json holds list"]),
        (lose_the_config, ["config.json cannot be read"]),
    ],
)
def test_folders_that_are_not_whole(tmp_path: Path, damage: Callable[[Path], None], words: list[str]) -> None:
    damage(write(tmp_path, "config.json", CODESTRAL_HUGGING_FACE))
    with pytest.raises(CheckpointError) as caught:
        open_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_fingerprint_follows_what_changes_embeddings_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    upstream.mamba2().save_pretrained(folder)
    upstream.write_tokenizer(folder)
    first = model_fingerprint(folder)
    folder.rename(tmp_path / "renamed")
    folder = tmp_path / "renamed"
    upstream.edit_json(folder / "config.json", transformers_version="9", use_cache=False)
    assert model_fingerprint(folder) == first
    upstream.edit_json(folder / "config.json", layer_norm_epsilon=1e-3)
    second = model_fingerprint(folder)
    upstream.write_tokenizer(folder, eos=True)
    third = model_fingerprint(folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4] + b"1234")
    assert len({first, second, third, model_fingerprint(folder)}) == 4


def test_the_shipped_models_fingerprint_stays() -> None:
    """An index on somebody's disk was made with it."""
    assert model_fingerprint(DEFAULT_MODEL_FOLDER) == "fdeaac20a80282f0"


def test_checking_a_foreign_folder(tmp_path: Path) -> None:
    upstream.mamba2().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read.*mamba-search convert"):
        check_model(tmp_path)
    upstream.write_tokenizer(tmp_path)
    config, fingerprint = check_model(tmp_path)
    assert config.vocabulary_size == 24  # the tokenizer has 20: a padded vocabulary is well
    assert fingerprint == model_fingerprint(tmp_path)
    upstream.mamba2(vocab_size=19).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has 20 tokens; vocabulary_size of the model .* is 19"):
        check_model(tmp_path)
    upstream.write_bin(tmp_path, upstream.mamba2())
    (tmp_path / "model.safetensors").unlink()
    assert check_model(tmp_path)[0] == config
    (tmp_path / "pytorch_model.bin").write_bytes((tmp_path / "pytorch_model.bin").read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .* cut short"):
        check_model(tmp_path)


def test_nothing_here_needs_torch(tmp_path: Path) -> None:
    write(tmp_path, "config.json", CODESTRAL_HUGGING_FACE)
    upstream.write_tokenizer(tmp_path)
    code = (
        "import sys; from pathlib import Path; import encoder.sizes;"
        "from services.encoding.model_folder import check_model;"
        "from encoder.tokenizer import Tokenizer; from encoder.layouts.opening import open_model;"
        "print(open_model(Path(sys.argv[1])).config.n_layers, Tokenizer.load(Path(sys.argv[1])).vocabulary_size);"
        "print(*{'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["64", "20"], done.stdout + done.stderr
