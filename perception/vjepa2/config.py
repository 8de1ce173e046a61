"""The published V-JEPA 2 models by name, and tiny ones of the same make.

    model = MODELS["vitg-ac"]

Sizes are from the papers (Assran et al. 2025, arXiv:2506.09985; V-JEPA 2.1) and the public model definitions
of facebookresearch/vjepa2. Head width is not to be read off a checkpoint, so the models are told apart here.
"""

from __future__ import annotations

from dataclasses import dataclass

NORM_EPS = 1e-6
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""ImageNet's statistics of RGB in 0…1, by which all of them take their frames normalised."""

ACTION_DIM = STATE_DIM = 7
"""Tool pose: x, y, z in metres, extrinsic x-y-z Euler angles in rad, closedness of the gripper 0…1. An action
is the difference of two (`perception.vjepa2.pose`)."""

LONGEST = 32
"""Time steps of a clip: they were trained on up to 64 frames, of which two make a time step."""


@dataclass(frozen=True)
class Layers:
    """A stack of `depth` transformer blocks: `width` features, `heads`, `hidden` units in the MLPs."""

    depth: int
    width: int
    heads: int
    hidden: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class EncoderConfig:
    """A video ViT on square frames of `image_size` pixels.

    `release` is "2.0" or "2.1". 2.1 pairs the frequencies of its rotary embedding as intended (2.0 has a slip
    that its weights have learned to live with), stretches positions to the grid of 256 px, marks images and
    videos by an embedding each, embeds single frames by weights of their own, and has four final norms, of
    which the last is for the features.
    """

    layers: Layers
    image_size: int
    release: str = "2.0"
    patch_size: int = 16
    tubelet_size: int = 2

    @property
    def grid(self) -> int:
        """Patches along a side of a frame."""
        return self.image_size // self.patch_size

    @property
    def tokens_per_frame(self) -> int:
        return self.grid**2


@dataclass(frozen=True)
class ModelConfig:
    """A model as it is published: its encoder, the key of it in the official file, a predictor if it acts.

    `encoder_keys` are tried in that order: features are taken from the moving average of the encoder where
    a file has one; the frozen encoder of 2-AC is under `encoder`.
    """

    encoder: EncoderConfig
    encoder_keys: tuple[str, ...]
    predictor: Layers | None = None


BASE = Layers(depth=12, width=768, heads=12, hidden=3072)
LARGE = Layers(depth=24, width=1024, heads=16, hidden=4096)
HUGE = Layers(depth=32, width=1280, heads=16, hidden=5120)
GIANT = Layers(depth=40, width=1408, heads=22, hidden=6144)
GIGANTIC = Layers(depth=48, width=1664, heads=26, hidden=8192)
TINY = Layers(depth=3, width=64, heads=2, hidden=128)

AVERAGED = ("target_encoder", "encoder")
FROZEN = ("encoder", "target_encoder")

MODELS = {
    "vitl": ModelConfig(EncoderConfig(LARGE, 256), AVERAGED),
    "vith": ModelConfig(EncoderConfig(HUGE, 256), AVERAGED),
    "vitg": ModelConfig(EncoderConfig(GIANT, 256), AVERAGED),
    "vitg-384": ModelConfig(EncoderConfig(GIANT, 384), AVERAGED),
    "vitg-ac": ModelConfig(EncoderConfig(GIANT, 256), FROZEN, predictor=LARGE),
    "vitb-2.1": ModelConfig(EncoderConfig(BASE, 384, "2.1"), ("ema_encoder",)),
    "vitl-2.1": ModelConfig(EncoderConfig(LARGE, 384, "2.1"), ("ema_encoder",)),
    "vitg-2.1": ModelConfig(EncoderConfig(GIANT, 384, "2.1"), ("target_encoder",)),
    "vitG-2.1": ModelConfig(EncoderConfig(GIGANTIC, 384, "2.1"), ("target_encoder",)),
    # For tests and for trying things out: the same make, 16 tokens of 64 numbers a frame.
    "tiny": ModelConfig(EncoderConfig(TINY, 64), AVERAGED),
    "tiny-2.1": ModelConfig(EncoderConfig(TINY, 64, "2.1"), ("ema_encoder",)),
    "tiny-ac": ModelConfig(EncoderConfig(TINY, 64), FROZEN, predictor=Layers(2, 96, 3, 192)),
}
