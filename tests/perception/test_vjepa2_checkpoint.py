from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import cli
from perception.errors import ModelError
from perception.vjepa2.checkpoint import empty_encoder, load_model
from perception.vjepa2.config import MODELS
from perception.vjepa2.parity import random_transformers

Content = dict[str, Any]


@pytest.fixture
def change(vjepa2_file: Path, tmp_path: Path) -> Callable[[Callable[[Content], Any]], Path]:
    """Writes what a function makes of the content of an official file."""

    def write(how: Callable[[Content], Any]) -> Path:
        content = torch.load(vjepa2_file, weights_only=True)
        changed = how(content)
        path = tmp_path / "changed.pt"
        torch.save(content if changed is None else changed, path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny encoder as `transformers` saves it."""
    random_transformers(MODELS["tiny"].encoder).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def refusal(path: Path, name: str = "tiny-ac") -> str:
    with pytest.raises(ModelError) as refused:
        load_model(path, name)
    message = str(refused.value)
    assert "\n" not in message and str(path) in message
    return message


def test_every_weight_of_an_official_file_comes_out_by_its_bare_name(vjepa2_file: Path):
    content = torch.load(vjepa2_file, weights_only=True)
    model = load_model(vjepa2_file, "tiny-ac")
    assert model.predictor is not None
    for module, key, wrapper in (
        (model.encoder, "encoder", "module.backbone."),
        (model.predictor, "predictor", "module."),
    ):
        found = module.state_dict()
        assert {wrapper + name for name in found} == set(content[key])
        assert all(torch.equal(value, content[key][wrapper + name]) for name, value in found.items())
        assert not module.training and not any(value.requires_grad for value in module.parameters())


def test_the_averaged_encoder_is_taken_where_there_is_one_and_the_frozen_one_for_acting(change):
    def average(content: Content) -> None:
        content["target_encoder"] = {name: value + 1 for name, value in content["encoder"].items()}

    path = change(average)
    bias = torch.load(path, weights_only=True)["encoder"]["module.backbone.norm.bias"]
    assert torch.equal(load_model(path, "tiny-ac").encoder.norm.bias, bias)
    assert torch.equal(load_model(path, "tiny").encoder.norm.bias, bias + 1)


def test_weights_without_use_are_left_aside_and_half_precision_is_widened(change):
    def add(content: Content) -> None:
        content["encoder"] = {name: value.bfloat16() for name, value in content["encoder"].items()}
        content["encoder"]["module.backbone.pos_embed"] = torch.zeros(1, 16, 64)
        content["predictor"]["module.extrinsics_encoder.weight"] = torch.zeros(96, 6)
        content["predictor"]["module.extrinsics_encoder.bias"] = torch.zeros(96)

    assert load_model(change(add), "tiny-ac").encoder.norm.bias.dtype == torch.float32


def test_a_2_1_encoder_is_loaded(tmp_path: Path):
    shapes = empty_encoder(MODELS["tiny-2.1"].encoder).state_dict()
    weights = {f"module.backbone.{name}": torch.randn(value.shape) for name, value in shapes.items()}
    torch.save({"ema_encoder": weights, "predictor": {}}, tmp_path / "vjepa2_1.pt")
    model = load_model(tmp_path / "vjepa2_1.pt", "tiny-2.1")
    assert model.predictor is None
    assert torch.equal(model.encoder.img_mod_embed, weights["module.backbone.img_mod_embed"])


def drop(key: str, name: str) -> Callable[[Content], None]:
    return lambda content: content[key].__delitem__(name)


def put(key: str, name: str, value: Any) -> Callable[[Content], None]:
    return lambda content: content[key].update({name: value})


@pytest.mark.parametrize(
    "how, words",
    [
        (drop("encoder", "module.backbone.blocks.2.norm1.bias"), "1 weights missing (blocks.2.norm1.bias)"),
        (
            drop("predictor", "module.predictor_proj.bias"),
            "predictor is not that of tiny-ac: 1 weights missing",
        ),
        (put("encoder", "module.backbone.cls_token", torch.zeros(1)), "1 weights unexpected (cls_token)"),
        (put("predictor", "module.mask_tokens.0", torch.zeros(1)), "1 weights unexpected (mask_tokens.0)"),
        (put("encoder", "module.backbone.norm.bias", torch.zeros(65)), "norm.bias is (65,), not (64,)"),
        (
            put("encoder", "module.backbone.norm.bias", torch.full((64,), float("nan"))),
            "holds numbers in norm.bias that are not finite",
        ),
        (put("encoder", "module.backbone.norm.bias", "zeros"), "encoder is no table of weights"),
        (lambda content: content.__delitem__("predictor"), "has no predictor"),
        (lambda content: content.__delitem__("encoder"), "has no encoder or target_encoder"),
        (lambda content: [1, 2], "holds a list, not models by name"),
        (lambda content: {"encoder": torch.zeros(3)}, "encoder is no table of weights"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name(change, how, words: str):
    assert words in refusal(change(how))


def test_the_weights_of_another_model_are_recognised(change, tmp_path: Path):
    weights = empty_encoder(MODELS["tiny-2.1"].encoder).state_dict()
    full = {f"module.{name}": torch.zeros(value.shape) for name, value in weights.items()}
    path = change(lambda content: {"encoder": full, "predictor": content["predictor"]})
    message = refusal(path)
    assert "unexpected (img_mod_embed, …)" in message and message.endswith(
        "these are the weights of tiny-2.1"
    )


class Harmful:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(change, tmp_path: Path):
    path = change(lambda content: content | {"opt": Harmful(tmp_path / "harm")})
    assert "holds Python objects beside tensors" in refusal(path)
    assert not (tmp_path / "harm").exists()


def test_damaged_and_foreign_files_are_told_apart(vjepa2_file: Path, tmp_path: Path):
    good, path = vjepa2_file.read_bytes(), tmp_path / "file.pt"
    assert "is missing" in refusal(path)
    for cut in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        assert "cut short: download it again" in refusal(path), cut
    path.write_text("<html>404</html>")
    assert "is no PyTorch checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    assert "is no PyTorch checkpoint" in refusal(path)
    with zipfile.ZipFile(vjepa2_file) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    broken = bytearray(good)
    broken[largest.header_offset + 1000] ^= 1
    path.write_bytes(broken)
    assert f"is damaged in {largest.filename} (checksum differs)" in refusal(path)


def test_a_model_that_is_not_known_is_refused(vjepa2_file: Path):
    with pytest.raises(ModelError, match="no V-JEPA 2 model 'vitx'; there are vitl, vith"):
        load_model(vjepa2_file, "vitx")


def test_the_command_tells_in_one_line_and_leaves_nothing(
    change, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = change(drop("predictor", "module.predictor_proj.bias"))
    command = ["convert-vjepa2", str(path), "--out", str(tmp_path / "models" / "new"), "--model", "tiny-ac"]
    assert cli.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_a_hugging_face_folder_that_is_not_the_models_is_refused(folder: Path):
    assert "has no action-conditioned predictor" in refusal(folder, "tiny-ac")
    assert "hidden_size is 64, for vitl it is 1024" in refusal(folder, "vitl")
    weights = folder / "model.safetensors"
    complete = {name: value.clone() for name, value in load_file(weights).items()}
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "is damaged or cut short" in refusal(folder, "tiny")
    key = "encoder.layer.1.attention.key.weight"
    save_file({name: value for name, value in complete.items() if name != key}, weights)
    assert "1 weights missing (blocks.1.attn.qkv.weight)" in refusal(folder, "tiny")
    save_file(complete | {"pooler.query": torch.zeros(2)}, weights)
    assert "1 weights unexpected (pooler.query)" in refusal(folder, "tiny")
    weights.unlink()
    assert "holds no model.safetensors" in refusal(folder, "tiny")


def test_a_hugging_face_description_that_is_wrong_is_refused(folder: Path):
    description = folder / "config.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"num_attention_heads": 4}))
    assert "num_attention_heads is 4, for tiny it is 2" in refusal(folder, "tiny")
    description.write_text(json.dumps(content | {"model_type": "ijepa"}))
    assert "model_type is 'ijepa', for tiny it is 'vjepa2'" in refusal(folder, "tiny")
    for broken in ("{", "[]"):
        description.write_text(broken)
        assert "config.json" in refusal(folder, "tiny")
