"""A frozen V-JEPA 2 encoder under a small model trained on top: its features, kept, and the latent from them.

    frozen = load_frozen("vjepa2-vitl", "vitl.pt")
    features = kept_features(Path("data/panda-push"), info, frozen)      # computed once, then read

Features do not change while training, so each frame goes through the large encoder once. `Readout` is what is
trained of the encoder; `FrozenEncoder` is both together, as a bundle has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional

from perception.dataset import DatasetInfo, read_shard, write_whole
from perception.errors import DatasetError, TrainingError
from perception.runtimes.onnx import file_sha256
from perception.vjepa2.checkpoint import HF_WEIGHTS, load_model
from perception.vjepa2.config import MODELS
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.layers import normalised

PREFIX = "vjepa2-"
# Positions within a picture survive as means over the cells of a grid of this many rows and columns.
CELLS = 4
TOGETHER = 16
# One ONNX file, weights in it, holds no more.
LARGEST_BYTES = 2**31 - 2**26


class FrozenFeatures(nn.Module):
    """Pictures uint8 (N, S, S, 3) of any size to features (N, 16·W), enlarged or reduced to what the encoder
    was trained on."""

    def __init__(self, encoder: VideoEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        config = self.encoder.config
        pixels = image.permute(0, 3, 1, 2).float()
        size = (config.image_size, config.image_size)
        if image.shape[1] != config.image_size:
            pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        features = normalised(self.encoder.encode_frames(pixels.permute(0, 2, 3, 1)))
        cell = config.grid // CELLS
        cells = features.unflatten(1, (CELLS, cell, CELLS, cell)).mean((2, 4))
        return cells.flatten(1)


class Readout(nn.Module):
    """Features (N, F) to latents float32 (N, D), each dimension of zero mean, unit variance."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, 256, bias=False),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, latent_dim),
            nn.BatchNorm1d(latent_dim, affine=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features.float())


class FrozenEncoder(nn.Module):
    """Pictures uint8 (N, S, S, 3) to latents (N, D)."""

    def __init__(self, features: FrozenFeatures, readout: Readout) -> None:
        super().__init__()
        self.features, self.readout = features, readout

    def forward(self, image: Tensor) -> Tensor:
        return self.readout(self.features(image))


@dataclass(frozen=True)
class Frozen:
    """An encoder with its weights: `name` as in the settings, `sha256` of the file of the weights."""

    name: str
    sha256: str
    features: FrozenFeatures


def load_frozen(name: str, weights: str | None, sha256: str | None = None) -> Frozen:
    """The encoder `name` with the weights of an official file or a Hugging Face folder.

    Raises TrainingError for a name that is none, without weights, for a model that does not fit into one
    ONNX file, or for weights that are not `sha256`; ModelError for weights that are not the model's."""
    model_name = name.removeprefix(PREFIX)
    usable = [PREFIX + key for key, config in MODELS.items() if config.predictor is None]
    if name not in usable:
        raise TrainingError(f"no encoder {name!r}; there are {', '.join(usable)}")
    if weights is None:
        raise TrainingError(f"encoder {name} needs its official file: name it with --encoder-weights")
    path = Path(weights)
    encoder = load_model(path, model_name).encoder
    size = sum(4 * value.numel() for value in encoder.state_dict().values())
    if size > LARGEST_BYTES:
        raise TrainingError(
            f"{name} has {size / 1e9:.1f} GB of weights, an ONNX file 2: take a smaller encoder"
        )
    found = file_sha256(path / HF_WEIGHTS if path.is_dir() else path)
    if sha256 not in (None, found):
        raise TrainingError(f"{path} is not the file that the run was trained with (sha256 differs)")
    return Frozen(name, found, FrozenFeatures(encoder))


def kept_features(folder: Path, info: DatasetInfo, frozen: Frozen) -> NDArray[np.float16]:
    """Features (E, T+1, F) of all frames of the dataset in `folder`, of each shard computed once.

    They are kept beside the dataset, by encoder. Raises DatasetError if a shard or what is kept is damaged.
    """
    kept = folder / "features" / f"{frozen.name}-{frozen.sha256[:12]}"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = []
    for index in track(range(info.shards), f"features of {frozen.name} on {device}"):
        path = kept / f"shard-{index:05d}.npy"
        if not path.exists():
            computed = _features(frozen.features, read_shard(folder, index, info).frames, device)
            write_whole(path, lambda partial, computed=computed: _save(partial, computed))
        parts.append(_read(path, info, index))
    return np.concatenate(parts)


def _save(path: Path, features: NDArray[np.float16]) -> None:
    with path.open("wb") as file:
        np.save(file, features)


def _read(path: Path, info: DatasetInfo, index: int) -> NDArray[np.float16]:
    count = min(info.episodes_per_shard, info.episodes - index * info.episodes_per_shard)
    try:
        features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path} is damaged ({error}): delete it, it is then computed again") from error
    if features.dtype != np.float16 or features.shape[:2] != (count, info.steps + 1) or features.ndim != 3:
        raise DatasetError(
            f"{path} is {features.dtype} {features.shape}, not of this dataset: delete it, it is then "
            "computed again"
        )
    return features


@torch.no_grad()
def _features(module: FrozenFeatures, frames: NDArray[np.uint8], device: str) -> NDArray[np.float16]:
    module = module.to(device)
    flat = torch.from_numpy(frames.reshape(-1, *frames.shape[2:]))
    parts = [module(part.to(device)).half().cpu().numpy() for part in flat.split(TOGETHER)]
    return np.concatenate(parts).reshape(*frames.shape[:2], -1)
