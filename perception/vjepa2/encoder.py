"""The encoder of V-JEPA 2 and 2.1: a clip or a single frame to one feature vector for each patch.

Source: Assran et al. 2025 (arXiv:2506.09985) and the public model definitions of facebookresearch/vjepa2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perception.vjepa2.config import IMAGE_MEAN, IMAGE_STD, LONGEST, NORM_EPS, EncoderConfig
from perception.vjepa2.layers import Block, grid_positions, rotary_tables

FINAL_NORMS_OF_2_1 = 4
GRID_OF_2_1 = 16
"""Release 2.1 counts rows and columns as if every picture were of 256 px."""


class PatchEmbedding(nn.Module):
    """Clips (B, 3, T, S, S) to tokens (B, N, W), one for each patch of `tubelet_size` frames."""

    def __init__(self, config: EncoderConfig, tubelet_size: int) -> None:
        super().__init__()
        kernel = (tubelet_size, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.layers.width, kernel, stride=kernel)

    def forward(self, clips: Tensor) -> Tensor:
        return self.proj(clips).flatten(2).transpose(1, 2)


class VideoEncoder(nn.Module):
    """Normalised clips to features; `encode_frames` takes single pictures as a camera gives them."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.layers.width
        cosine, sine = self._positions()
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self.patch_embed = PatchEmbedding(config, config.tubelet_size)
        self.blocks = nn.ModuleList(Block(config.layers) for _ in range(config.layers.depth))
        if config.release == "2.0":
            self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        else:
            self.patch_embed_img = PatchEmbedding(config, 1)
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            norms = (nn.LayerNorm(width, eps=NORM_EPS) for _ in range(FINAL_NORMS_OF_2_1))
            self.norms_block = nn.ModuleList(norms)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, S, S), normalised by `IMAGE_MEAN` and `IMAGE_STD`, to features (B, N, W).

        T is a multiple of the tubelet's two frames, up to 64, or 1: then 2.0 sees the frame twice, and 2.1
        an image.
        Raises ValueError for any other shape.
        """
        config, frames = self.config, clips.shape[2]
        longest = LONGEST * config.tubelet_size
        if clips.shape[3:] != (config.image_size, config.image_size):
            raise ValueError(f"expected frames of {config.image_size} px, got {tuple(clips.shape[3:])}")
        if frames == 1:
            tokens = self._embed_image(clips)
        elif frames % config.tubelet_size == 0 and frames <= longest:
            tokens = self._embed_video(clips)
        else:
            raise ValueError(
                f"a clip has 1 frame or a multiple of {config.tubelet_size} up to {longest}, not {frames}"
            )
        cosine, sine = self.cosine[: tokens.shape[1]], self.sine[: tokens.shape[1]]
        for block in self.blocks:
            tokens = block(tokens, cosine, sine)
        return self.norm(tokens) if config.release == "2.0" else self.norms_block[-1](tokens)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 RGB pictures (B, S, S, 3), each a clip of its own, to features (B, tokens, W)."""
        mean = torch.tensor(IMAGE_MEAN, device=frames.device) * 255
        std = torch.tensor(IMAGE_STD, device=frames.device) * 255
        pixels = (frames.to(torch.float32) - mean) / std
        return self(pixels.permute(0, 3, 1, 2)[:, :, None])

    def _embed_image(self, clips: Tensor) -> Tensor:
        if self.config.release == "2.0":
            return self.patch_embed(clips.expand(-1, -1, self.config.tubelet_size, -1, -1))
        return self.patch_embed_img(clips) + self.img_mod_embed

    def _embed_video(self, clips: Tensor) -> Tensor:
        tokens = self.patch_embed(clips)
        return tokens if self.config.release == "2.0" else tokens + self.video_mod_embed

    def _positions(self) -> tuple[Tensor, Tensor]:
        config = self.config
        positions = grid_positions(LONGEST, config.grid, config.grid)
        if config.release == "2.1":
            positions[:, 1:] *= (GRID_OF_2_1 - 1) / (config.grid - 1)
        return rotary_tables(positions, config.layers.head_width, config.release)
