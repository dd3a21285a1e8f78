"""A sentence-transformers model of a few kilobytes: a BERT, RoBERTa or MPNet with random weights and our vocabulary."""

import json
from pathlib import Path

import tokenizers
import tokenizers.processors
import torch
import transformers

from encoder.model_config import DEFAULT_MODEL_FOLDER
from encoder.tokenizer import TOKENIZER_FILE

_MODULES = ("Transformer", "Pooling", "Normalize")


def save_tiny_teacher(folder: Path, *, width: int = 32, pooling: str = "mean", kind: str = "bert") -> Path:
    """Write a teacher that both ways of reading can load."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 300}
    if kind == "mpnet":
        model = transformers.MPNetModel(transformers.MPNetConfig(hidden_size=width, **sizes))
    elif kind == "roberta":
        config = transformers.RobertaConfig(vocab_size=30522, hidden_size=width, **sizes)
        model = transformers.RobertaModel(config)
    else:
        model = transformers.BertModel(transformers.BertConfig(hidden_size=width, **sizes))
    model.save_pretrained(folder)
    pipeline = tokenizers.Tokenizer.from_file(str(DEFAULT_MODEL_FOLDER / TOKENIZER_FILE))
    special = [(token, pipeline.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    pipeline.post_processor = tokenizers.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=pipeline,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": f"{number}_{kind}" if number else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, kind in enumerate(_MODULES)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    chosen = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": width} | chosen))
    (folder / "2_Normalize").mkdir()
    return folder
