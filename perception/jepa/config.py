"""Training settings: defaults are the recipe of the shipped models; a YAML file may override any of them."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from perception.errors import TrainingError


class TrainConfig(BaseModel):
    """The recipe. Weights of loss terms are relative to the prediction error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    threads: int = Field(default=1, ge=1)
    held_out_share: float = Field(default=0.05, gt=0, lt=0.5)

    encoder: str | None = Field(default=None, description="a frozen one, vjepa2-NAME; None: our own, trained")
    encoder_weights: str | None = Field(default=None, description="official file of the frozen encoder")
    begin_from: str | None = Field(default=None, description="a bundle whose weights to begin with")
    latent_dim: int = Field(default=64, ge=2)
    block: int = Field(default=2, ge=1, description="actions of 0.1 s in one step of the world model")
    window: int = Field(default=7, description="model steps in a training window")
    horizon: int = Field(default=3, ge=1, validate_default=True, description="open-loop steps in the loss")
    max_steps: int = Field(default=40, ge=1, description="the furthest goal that the heads are trained on")
    batch: int = Field(default=96, ge=2, description="windows a step")
    together: int = Field(
        default=8, ge=2, validate_default=True, description="windows of one session in a batch"
    )
    steps: int = Field(default=4000, ge=1, description="steps of the world model")
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    tool_weight: float = 1.0
    sigreg_weight: float = 0.02
    straightening_weight: float = 0.02
    inverse_weight: float = 0.3
    reflex_weight: float = 0.5
    time_to_go_weight: float = 0.1
    displacement_weight: float = 0.0

    heads_told_tool: bool = Field(default=False, description="proposal and energy are told the tool's state")
    head_steps: int = Field(default=6000, ge=1, description="steps of proposal and energy on frozen latents")
    head_batch: int = Field(default=1024, ge=2)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    head_views: int = Field(default=3, ge=1, description="of each frame: as recorded, the others augmented")
    advantage_temperature: float = Field(
        default=0.5,
        gt=0,
        description="model steps; the reflex learns most from quick ways to its goal",
    )

    monitor_every: int = Field(
        default=250, ge=1, description="steps between readings of the collapse monitors"
    )
    checkpoint_every: int = Field(default=250, ge=1)

    @field_validator("together")
    @classmethod
    def _divides_the_batch(cls, together: int, others: ValidationInfo) -> int:
        batch = others.data.get("batch", together)
        if batch % together:
            raise ValueError(f"a batch of {batch} windows does not divide into runs of {together}")
        return together

    @field_validator("horizon")
    @classmethod
    def _fits_into_window(cls, horizon: int, others: ValidationInfo) -> int:
        window = others.data.get("window", horizon + 2)
        if horizon + 2 > window:
            raise ValueError(f"a window of {window} has room for {window - 2} open-loop steps, not {horizon}")
        return horizon


def load_config(path: Path | None, **overrides: int | str) -> TrainConfig:
    """The recipe with what `path` (YAML) and `overrides` change. Raises TrainingError naming the bad key."""
    settings: object = {}
    if path is not None:
        try:
            settings = yaml.safe_load(path.read_text()) or {}
        except FileNotFoundError as error:
            raise TrainingError(f"{path} does not exist: name a YAML file of training settings") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} is not YAML: {error}") from error
    if not isinstance(settings, dict):
        raise TrainingError(f"{path} must hold `key: value` lines, not {type(settings).__name__}")
    try:
        return TrainConfig.model_validate({**settings, **overrides})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        known = (
            "" if key in TrainConfig.model_fields else f"; known keys: {', '.join(TrainConfig.model_fields)}"
        )
        raise TrainingError(f"{path or 'command line'}: {key}: {problem['msg']}{known}") from error
