"""Prompt cleaning as the reference does it, and text encoders in every form that published checkpoints take."""

import io
import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from diffusers.pipelines.helios.pipeline_helios_pyramid import prompt_clean
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from helios_engine.errors import CheckpointError
from helios_engine.loading.check import check_checkpoint
from helios_engine.loading.text import load_text_encoder
from helios_engine.text.encoder import clean_prompt

WEIGHTS = "text_encoder/model.safetensors"
CONFIG = "text_encoder/config.json"
ODD = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp", "Zs")]
"""Every control, format and space character: where definitions of white space differ."""


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def edit_config(root: Path, **values: Any) -> None:
    (root / CONFIG).write_text(json.dumps(json.loads((root / CONFIG).read_text()) | values))


def encode(root: Path, *prompts: str) -> torch.Tensor:
    return load_text_encoder(root, dtype=torch.float32).encode(prompts)


def test_odd_characters_are_cleaned_as_by_the_reference() -> None:
    assert {"\x1c", "\x85", "\xa0", "\u200b", "\u2028", "\u3000", "\ufeff"} <= set(ODD)
    for character in ODD:
        code = ord(character)
        for text in (f" a{character} b{character}", f"a&#{code}; b", f"a&amp;#x{code:x};b"):
            assert clean_prompt(text) == prompt_clean(text), (hex(code), text)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\n\tcat  ", "a cat"),
        ("salt &amp;amp; pepper", "salt & pepper"),
        ("&lt;b&gt; caf&eacute;", "<b> café"),
        ("â€œquotesâ€\x9d", '"quotes"'),
        ("ＦＵＬＬ　width", "FULL width"),
    ],
)
def test_cleaning(raw: str, clean: str) -> None:
    assert clean_prompt(raw) == clean == prompt_clean(raw)


def test_embeddings_are_zero_exactly_beyond_the_prompts_tokens(checkpoint: Path) -> None:
    encoder = load_text_encoder(checkpoint, dtype=torch.float32)
    prompts = ["a cat", "the lake at night", "red " * 700]
    embeds = encoder.encode(prompts)
    assert embeds.shape == (3, 512, 32)
    for prompt, embed in zip(prompts, embeds, strict=True):
        tokens = min(len(encoder.tokenizer(prompt.strip()).input_ids), 512)
        assert embed[:tokens].ne(0).any(dim=-1).all()
        assert not embed[tokens:].any()


@pytest.mark.parametrize("library_ties", [True, False])
def test_untied_configurations_use_the_shared_table(
    copy: Path, library_ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published ones say tie_word_embeddings: false; releases of transformers differ in what they make of it."""
    expected = encode(copy, "a cat")
    edit_config(copy, tie_word_embeddings=False)
    if not library_ties:
        monkeypatch.setattr(UMT5EncoderModel, "tie_weights", lambda *_, **__: None)
    assert torch.equal(encode(copy, "a cat"), expected)
    check_checkpoint(copy)


def test_a_table_stored_under_both_names_is_accepted(copy: Path) -> None:
    expected = encode(copy, "a cat")
    weights = load_file(copy / WEIGHTS)
    save_file(weights | {"encoder.embed_tokens.weight": weights["shared.weight"].clone()}, copy / WEIGHTS)
    assert torch.equal(encode(copy, "a cat"), expected)
    check_checkpoint(copy)


def test_a_sentencepiece_model_alone_is_a_tokenizer(copy: Path) -> None:
    model = io.BytesIO()
    lines = ["a cat sits by the lake at night", "café in the snow, the forest is red", "１２３ fire"] * 30
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=100,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (copy / "tokenizer/tokenizer.json").unlink()
    (copy / "tokenizer/spiece.model").write_bytes(model.getvalue())
    check_checkpoint(copy)
    tokenizer = load_text_encoder(copy).tokenizer
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    for text in ("a cat", "Ａ ｃａｔ  by the  ｌａｋｅ", "cafe\u0301 ﬁre", "zebra"):
        assert tokenizer(text).input_ids == [*pieces.encode(text), tokenizer.eos_token_id], text


def test_a_tokenizer_without_a_vocabulary_is_refused(copy: Path) -> None:
    (copy / "tokenizer/tokenizer.json").unlink()
    for attempt in (check_checkpoint, load_text_encoder):
        with pytest.raises(CheckpointError, match=r"tokenizer: .*none of tokenizer\.json, spiece\.model"):
            attempt(copy)


def test_a_tokenizer_larger_than_the_table_is_refused(copy: Path) -> None:
    edit_config(copy, vocab_size=100)
    weights = load_file(copy / WEIGHTS)
    tokens = len(weights["shared.weight"])
    save_file(weights | {"shared.weight": weights["shared.weight"][:100].clone()}, copy / WEIGHTS)
    for attempt in (check_checkpoint, load_text_encoder):
        with pytest.raises(CheckpointError, match=f"tokenizer: has {tokens} tokens, .* vocab_size 100"):
            attempt(copy)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"d_model": 24}, ["d_model: 24", "32, the transformer's text_dim"]),
        ({"d_model": "32"}, ["d_model", "expected int"]),
        ({"num_heads": None}, ["num_heads", "None"]),
        ({"d_kv": -8}, ["d_kv: -8", "an integer from 1"]),
        ({"model_type": "clip"}, ["model_type: 'clip'", "allowed: umt5"]),
    ],
    ids=str,
)
def test_a_bad_encoder_configuration_is_named_in_one_line(copy: Path, values: dict[str, Any], named: list[str]) -> None:
    edit_config(copy, **values)
    for attempt in (check_checkpoint, load_text_encoder):
        with pytest.raises(CheckpointError) as caught:
            attempt(copy)
        message = str(caught.value)
        assert "\n" not in message
        for part in (CONFIG, *named):
            assert part in message
