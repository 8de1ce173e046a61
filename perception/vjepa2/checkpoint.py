"""Weights of V-JEPA 2: the official `.pt` files, and folders in the Hugging Face layout.

    model = load_model(Path("vjepa2-ac-vitg.pt"), "vitg-ac")

Nothing in a file is run: a `.pt` file may hold tensors and plain values, no other Python objects. Every
weight of the model must be there, finite and of the right shape, and no others.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from perception.errors import ModelError
from perception.vjepa2.ac_predictor import ActionPredictor
from perception.vjepa2.config import MODELS, EncoderConfig, ModelConfig
from perception.vjepa2.encoder import VideoEncoder

Weights = Mapping[str, Tensor]

# What training in parallel, and with several masks at once, has wrapped the models in.
WRAPPERS = ("module.", "backbone.")
# In official files, and in no use: sine-cosine positions beside the rotary ones, and camera poses, which the
# published predictor was trained without.
UNUSED = ("pos_embed", "extrinsics_encoder.weight", "extrinsics_encoder.bias")

HF_CONFIG, HF_WEIGHTS = "config.json", "model.safetensors"
HF_NAMES = {
    "encoder.embeddings.patch_embeddings.": "patch_embed.",
    "encoder.layer.": "blocks.",
    "encoder.layernorm.": "norm.",
}
HF_MASK_PREDICTOR = "predictor."


@dataclass(frozen=True)
class VJepa2:
    """A model with its weights, in evaluation mode, float32 on the CPU."""

    name: str
    encoder: VideoEncoder
    predictor: ActionPredictor | None


def load_model(path: Path, name: str) -> VJepa2:
    """The model `name` of `MODELS` with the weights at `path`: a `.pt` file or a Hugging Face folder.

    Raises ModelError, in one line, for a name that is none, a file that is missing, damaged or foreign, and
    for weights that are missing, too many, of other shapes or not finite.
    """
    if name not in MODELS:
        raise ModelError(f"no V-JEPA 2 model {name!r}; there are {', '.join(MODELS)}")
    config = MODELS[name]
    if path.is_dir():
        return VJepa2(name, _encoder(_read_folder(path, name), path, name, "encoder"), None)
    content = _read_file(path)
    key = next((key for key in config.encoder_keys if key in content), None)
    if key is None:
        raise ModelError(
            f"{path} has no {' or '.join(config.encoder_keys)}, which the file of {name} has; "
            f"it holds {', '.join(map(str, content))}: name an official V-JEPA 2 file"
        )
    encoder = _encoder(_unwrapped(content[key], path, key), path, name, key)
    if config.predictor is None:
        return VJepa2(name, encoder, None)
    if "predictor" not in content:
        raise ModelError(f"{path} has no predictor, which the file of {name} has")
    with torch.device("meta"):
        predictor = ActionPredictor(config.predictor, config.encoder)
    weights = _unwrapped(content["predictor"], path, "predictor")
    return VJepa2(name, encoder, _filled(predictor, weights, path, name, "predictor"))


def empty_encoder(config: EncoderConfig) -> VideoEncoder:
    """An encoder whose weights have shapes but no memory yet."""
    with torch.device("meta"):
        return VideoEncoder(config)


def _encoder(weights: Weights, path: Path, name: str, key: str) -> VideoEncoder:
    return _filled(empty_encoder(MODELS[name].encoder), weights, path, name, key)


def _filled(module: Any, weights: Weights, path: Path, name: str, key: str) -> Any:
    """`module`, made without memory, with `weights` in it."""
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items() if key not in UNUSED}
    if found != expected:
        raise ModelError(f"{path}: {key} is not that of {name}: {_gap(found, expected)}{_hint(found)}")
    broken = next((key for key in expected if not torch.isfinite(weights[key]).all()), None)
    if broken is not None:
        raise ModelError(f"{path}: {key} holds numbers in {broken} that are not finite: download it again")
    module.load_state_dict({key: weights[key].float() for key in expected}, assign=True)
    return module.eval().requires_grad_(False)


def _gap(found: dict[str, Any], expected: dict[str, Any]) -> str:
    problems = []
    for what, names in (
        ("missing", [key for key in expected if key not in found]),
        ("unexpected", [key for key in found if key not in expected]),
    ):
        if names:
            problems.append(f"{len(names)} weights {what} ({names[0]}{', …' if len(names) > 1 else ''})")
    other = [key for key in expected if key in found and found[key] != expected[key]]
    if other:
        problems.append(f"{other[0]} is {found[other[0]]}, not {expected[other[0]]}")
    return ", ".join(problems)


def _hint(found: dict[str, Any]) -> str:
    """Which models' encoders have exactly these weights."""
    names = [
        name
        for name, config in MODELS.items()
        if {key: tuple(value.shape) for key, value in empty_encoder(config.encoder).state_dict().items()}
        == found
    ]
    return f"; these are the weights of {' or '.join(names)}" if names else ""


def _unwrapped(weights: Any, path: Path, key: str) -> Weights:
    if not isinstance(weights, Mapping) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelError(f"{path}: {key} is no table of weights: name an official V-JEPA 2 file")
    found = {}
    for name, value in weights.items():
        bare = str(name)
        while bare.startswith(WRAPPERS):
            bare = bare.partition(".")[2]
        found[bare] = value
    return found


def _read_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ModelError(f"{path} is missing: name an official V-JEPA 2 file or a Hugging Face folder")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ModelError(f"{path} is no PyTorch checkpoint, or was cut short: download it again") from error
    if damaged is not None:
        raise ModelError(f"{path} is damaged in {damaged} (checksum differs): download it again")
    try:
        # Mapped, not read: an official file is several times as large as what is needed of it.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds Python objects beside tensors, which may run code when loaded: refused"
        ) from error
    except Exception as error:  # whatever torch's reader makes of a foreign archive
        raise ModelError(f"{path} is no PyTorch checkpoint: name an official V-JEPA 2 file") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, not models by name")
    return content


def _read_folder(path: Path, name: str) -> Weights:
    """Encoder weights of a folder as `transformers` writes it for VJEPA2Model, by their official names."""
    for file in (HF_CONFIG, HF_WEIGHTS):
        if not (path / file).is_file():
            raise ModelError(f"{path} holds no {file}: name a folder in the Hugging Face layout")
    if MODELS[name].predictor is not None:
        raise ModelError(
            f"{path}: the Hugging Face layout has no action-conditioned predictor: name a .pt file"
        )
    try:
        described = json.loads((path / HF_CONFIG).read_text())
    except ValueError as error:
        raise ModelError(f"{path / HF_CONFIG} is not JSON: {error}") from error
    expected = _hf_config(MODELS[name])
    found = {key: described.get(key) for key in expected} if isinstance(described, dict) else {}
    if found != expected:
        key = next(key for key in expected if found.get(key) != expected[key])
        raise ModelError(
            f"{path / HF_CONFIG}: {key} is {found.get(key)!r}, for {name} it is {expected[key]!r}"
        )
    try:
        weights = load_file(path / HF_WEIGHTS)
    except SafetensorError as error:
        raise ModelError(
            f"{path / HF_WEIGHTS} is damaged or cut short ({error}): download it again"
        ) from error
    return _official_names(weights)


def _hf_config(config: ModelConfig) -> dict[str, Any]:
    """What `config.json` says of this encoder."""
    encoder, layers = config.encoder, config.encoder.layers
    return {
        "model_type": "vjepa2",
        "hidden_size": layers.width,
        "num_hidden_layers": layers.depth,
        "num_attention_heads": layers.heads,
        "crop_size": encoder.image_size,
        "patch_size": encoder.patch_size,
        "tubelet_size": encoder.tubelet_size,
    }


def _official_names(weights: Weights) -> Weights:
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith(HF_MASK_PREDICTOR):
            continue
        for theirs, official in HF_NAMES.items():
            if name.startswith(theirs):
                name = official + name[len(theirs) :]
        found[name.replace(".attention.", ".attn.")] = value
    for query in [name for name in found if ".attn.query." in name]:
        parts = [found.pop(query.replace("query", part), None) for part in ("query", "key", "value")]
        if all(part is not None for part in parts):
            found[query.replace("query", "qkv")] = torch.cat([part for part in parts if part is not None])
    return found
