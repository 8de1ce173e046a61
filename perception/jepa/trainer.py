"""The training path itself: begin or resume, train the world model, train the heads."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from perception.dataset import DatasetInfo, Episodes, load_dataset
from perception.errors import TrainingError
from perception.jepa.config import TrainConfig
from perception.jepa.distributed import (
    average_gradients,
    check_shares,
    mean_of_processes,
    rank,
    share_batch_statistics,
    share_of,
)
from perception.jepa.losses import (
    Models,
    advantage_weights,
    reflex_misses,
    steps_to_go_loss,
    world_model_terms,
)
from perception.jepa.model import Displacement, Encoder, Energy, InverseDynamics, Predictor, Proposal
from perception.jepa.monitors import OPEN_LOOP_STEPS, calibrate_surprise, encode_views, read_health
from perception.jepa.report import NoReport, Report
from perception.jepa.warm_start import start_from
from perception.jepa.windows import GoalPairs, Normaliser, Windows
from perception.vjepa2.frozen import Readout, kept_features, load_frozen

CHECKPOINT = "checkpoint.pt"
KEYS = ("config", "info", "normaliser", "models", "optimisers", "progress", "health", "surprise")


class Trainer:
    """One training run: its data, its models, and where it stands."""

    def __init__(
        self,
        info: DatasetInfo,
        episodes: Episodes,
        out: Path,
        config: TrainConfig,
        frozen_sha256: str | None = None,
    ) -> None:
        """Of a frozen encoder, `frozen_sha256` names the weights, and `episodes` hold features for frames."""
        check_shares(config.batch, config.together, config.head_batch)
        torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.info, self.out, self.config = info, out, config
        sessions = len(episodes) // info.session
        held_out = held_out_sessions(info, config)
        if (sessions - held_out) * info.session < 2:
            raise TrainingError(
                f"{len(episodes)} episodes in sessions of {info.session} are too few to train on and hold a "
                "session out: collect more"
            )
        needed = needed_steps(config)
        if info.steps < needed:
            raise TrainingError(
                f"episodes of {info.steps} actions are too short: with block {config.block} and window "
                f"{config.window}, training needs {needed}; collect longer ones"
            )
        self.training, self.held_out = _split(episodes, (sessions - held_out) * info.session)
        self.normaliser = Normaliser.fit(self.training.tool)
        action_dim = config.block * len(info.axes)
        self.frozen = {"sha256": frozen_sha256}
        self.encoder: nn.Module
        if frozen_sha256 is not None:
            self.encoder = Readout(episodes.frames.shape[-1], config.latent_dim)
        else:
            # Frames come as NHWC; weights in the same layout save a fifth of the training time on a CPU.
            self.encoder = Encoder(info.image_size, config.latent_dim).to(  # type: ignore[call-overload]
                memory_format=torch.channels_last
            )
        share_batch_statistics(self.encoder)
        self.predictor = Predictor(config.latent_dim, info.tool_dim, action_dim)
        self.inverse = InverseDynamics(config.latent_dim, action_dim)
        told = info.tool_dim if config.heads_told_tool else 0
        self.proposal = Proposal(config.latent_dim, action_dim, config.max_steps, told)
        self.energy = Energy(config.latent_dim, config.max_steps, told)
        self.displacement = Displacement(config.latent_dim, info.tool_dim)
        self.world_model_optimiser = self._optimiser(list(self._models().values()), config.learning_rate)
        self.head_optimiser = self._optimiser([self.proposal, self.energy], config.head_learning_rate)
        self.world_model_step = self.head_step = 0
        self.seconds = 0.0
        self.health: dict[str, float] = {}
        self.surprise: dict[str, Any] = {}

    @classmethod
    def begin(cls, data: Path, out: Path, config: TrainConfig) -> Trainer:
        """A new run in `out`, or the one begun there. Raises TrainingError if that one was another run."""
        info, episodes = load_dataset(data)
        sha256 = None
        if config.encoder is not None:
            frozen = load_frozen(config.encoder, config.encoder_weights)
            torch.set_num_threads(config.threads)
            features: NDArray[Any] = kept_features(data, info, frozen)
            episodes = replace(episodes, frames=features)
            sha256 = frozen.sha256
        trainer = cls(info, episodes, out, config, sha256)
        path = out / CHECKPOINT
        if path.exists():
            trainer._restore(read_checkpoint(path), path)
            _say(f"resuming {out} at step {trainer.world_model_step} + {trainer.head_step}")
        elif config.begin_from is not None:
            fitted = start_from(Path(config.begin_from), trainer._models())
            anew = ", ".join(sorted(trainer._models().keys() - set(fitted))) or "nothing"
            _say(f"beginning with {', '.join(fitted)} of {config.begin_from}; from scratch: {anew}")
        return trainer

    def train_world_model(self) -> None:
        """Phase one: all models together, on windows of the training episodes and hindsight goals."""
        config = self.config
        windows = self._windows(self.training, config.window)
        watch = self._windows(self.held_out, OPEN_LOOP_STEPS + 2)
        weights = (
            1.0,
            config.tool_weight,
            config.sigreg_weight,
            config.straightening_weight,
            config.inverse_weight,
            config.reflex_weight,
            config.time_to_go_weight,
            config.displacement_weight,
        )
        models = Models(
            self.encoder, self.predictor, self.inverse, self.proposal, self.energy, self.displacement
        )
        with self._progress("world model", config.steps, self.world_model_step) as report:
            for step in range(self.world_model_step, config.steps):
                started = time.monotonic()
                self._set_training(True)
                _anneal(self.world_model_optimiser, config.learning_rate, step, config.steps)
                sample = windows.sample(
                    config.seed, step, config.batch, config.together, share_of(config.batch)
                )
                generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    terms = world_model_terms(models, sample, config.horizon, config.together, generator)
                loss = torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()
                means = mean_of_processes(torch.stack(terms).detach())
                self._descend(self.world_model_optimiser, loss, "world model", step)
                self.world_model_step = step + 1
                self.seconds += time.monotonic() - started
                report(self.world_model_step, dict(zip(terms._fields, means.tolist(), strict=True)))
                if rank() != 0:
                    continue
                if self.world_model_step % config.monitor_every == 0 or self.world_model_step == config.steps:
                    self._set_training(False)
                    self.health = read_health(self.encoder, self.predictor, watch, self.held_out).as_dict()
                    report.health(self.world_model_step, self.health)
                if self.world_model_step == config.steps:
                    self.surprise = calibrate_surprise(self.encoder, self.predictor, windows, watch)
                if (
                    self.world_model_step % config.checkpoint_every == 0
                    or self.world_model_step == config.steps
                ):
                    self.save()

    def train_heads(self) -> None:
        """Phase two: Mode-1 proposal and time-to-go energy go on, on the frozen encoder's latents."""
        config = self.config
        if self.head_step >= config.head_steps:
            return
        self._set_training(False)
        frames = self.training.frames
        # Features of a frozen encoder were computed of pictures as they are: there is one view of them.
        views = config.head_views if self.frozen["sha256"] is None else 1
        _say(f"encoding {views * frames.shape[0] * frames.shape[1]} frames")
        pairs = GoalPairs(
            self.info,
            encode_views(self.encoder, frames, self.info, views),
            self.normaliser(self.training.tool),
            self.training.actions,
            config.block,
            config.max_steps,
        )
        share = share_of(config.head_batch)
        with self._progress("heads", config.head_steps, self.head_step) as report:
            for step in range(self.head_step, config.head_steps):
                started = time.monotonic()
                _anneal(self.head_optimiser, config.head_learning_rate, step, config.head_steps)
                done = pairs.proposal_batch(config.seed, step, config.head_batch, share)
                judged = pairs.energy_batch(config.seed, step, config.head_batch, share)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    with torch.no_grad():
                        before = self.energy.steps_to_go(done.latent, done.goal, done.tool)
                        after = self.energy.steps_to_go(done.following, done.goal, done.following_tool)
                        weights = advantage_weights(before, after, config.advantage_temperature)
                    proposed, logits = self.proposal(done.latent, done.goal, done.steps_left, done.tool)
                    reflex = (weights * reflex_misses(proposed, logits, done.taken)).mean()
                    logits = self.energy(judged.latent, judged.goal, judged.tool)
                    time_to_go = steps_to_go_loss(logits.float(), judged.steps_to_go)
                means = mean_of_processes(torch.stack([reflex, time_to_go]).detach())
                self._descend(self.head_optimiser, reflex + time_to_go, "heads", step)
                self.head_step = step + 1
                self.seconds += time.monotonic() - started
                report(self.head_step, dict(zip(("proposal", "energy"), means.tolist(), strict=True)))
                if self.head_step % (4 * config.checkpoint_every) == 0 or self.head_step == config.head_steps:
                    self.save()

    def save(self) -> None:
        """Write the checkpoint whole, or leave the last one as it was. The first process writes for all."""
        if rank() != 0:
            return
        state = {
            "config": self.config.model_dump(),
            "info": self.info.model_dump(),
            "normaliser": asdict(self.normaliser),
            "models": {name: model.state_dict() for name, model in self._models().items()},
            "optimisers": [self.world_model_optimiser.state_dict(), self.head_optimiser.state_dict()],
            "progress": (self.world_model_step, self.head_step, self.seconds),
            "health": self.health,
            "surprise": self.surprise,
            "frozen": self.frozen,
        }
        path = self.out / CHECKPOINT
        partial = path.with_suffix(".partial")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(state, file)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:
            # torch hides a full disk behind a RuntimeError of its own.
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise TrainingError(
                f"cannot write {path}: {reason}; the last checkpoint is kept, free space and run the same "
                "command again"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def _restore(self, state: dict[str, Any], path: Path) -> None:
        for name, found, wanted in (
            ("settings", state["config"], self.config.model_dump()),
            ("dataset", DatasetInfo.model_validate(state["info"]).model_dump(), self.info.model_dump()),
            ("frozen encoder", state.get("frozen", {}), self.frozen),
        ):
            differing = [key for key in wanted if found.get(key) != wanted[key]]
            if differing:
                raise TrainingError(
                    f"{path} belongs to a run with another {name} ({', '.join(differing)}): "
                    "go on with the same, or choose an empty --out folder"
                )
        for model_name, model in self._models().items():
            model.load_state_dict(state["models"][model_name])
        for optimiser, saved in zip(
            (self.world_model_optimiser, self.head_optimiser), state["optimisers"], strict=True
        ):
            optimiser.load_state_dict(saved)
        self.world_model_step, self.head_step, self.seconds = state["progress"]
        self.health, self.surprise = state["health"], state["surprise"]

    def _models(self) -> dict[str, nn.Module]:
        return {
            "encoder": self.encoder,
            "predictor": self.predictor,
            "inverse": self.inverse,
            "proposal": self.proposal,
            "energy": self.energy,
            "displacement": self.displacement,
        }

    def _optimiser(self, models: list[nn.Module], rate: float) -> torch.optim.AdamW:
        parameters = [parameter for model in models for parameter in model.parameters()]
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=self.config.weight_decay)

    def _windows(self, episodes: Episodes, length: int) -> Windows:
        config = self.config
        return Windows(self.info, episodes, config.block, length, config.max_steps, self.normaliser)

    def _set_training(self, training: bool) -> None:
        for model in (self.encoder, self.predictor, self.inverse):
            model.train(training)

    def _descend(self, optimiser: torch.optim.AdamW, loss: torch.Tensor, phase: str, step: int) -> None:
        mean = mean_of_processes(loss.detach())
        if not torch.isfinite(mean):
            raise TrainingError(
                f"the loss of the {phase} is {mean.item()} at step {step}: lower the learning rate; "
                f"the checkpoint in {self.out} is from before"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    def _progress(self, phase: str, total: int, done: int) -> Report | NoReport:
        return Report(phase, total, done, self.out) if rank() == 0 else NoReport()


def needed_steps(config: TrainConfig) -> int:
    """How many actions an episode must have at least."""
    return config.block * max(config.window - 1, OPEN_LOOP_STEPS + 1, config.max_steps)


def held_out_sessions(info: DatasetInfo, config: TrainConfig) -> int:
    """How many of a dataset's sessions, its last ones, nothing is trained on: at least two episodes."""
    sessions = info.episodes // info.session
    return max(-(-2 // info.session), round(config.held_out_share * sessions))


def _say(text: str) -> None:
    if rank() == 0:
        print(text)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises TrainingError if `path` is missing, truncated, or no checkpoint of ours."""
    try:
        state = torch.load(path, weights_only=False)
        missing = [key for key in KEYS if key not in state]
    except FileNotFoundError as error:
        raise TrainingError(f"{path} does not exist: train first with `jepa-arm train`") from error
    except Exception as error:  # whatever unpickling makes of damaged or foreign bytes
        raise TrainingError(f"{path} is damaged or no checkpoint of jepa-arm ({error}): delete it") from error
    if missing:
        raise TrainingError(f"{path} is no checkpoint of jepa-arm (it lacks {', '.join(missing)}): delete it")
    return state


def _split(episodes: Episodes, first: int) -> Iterator[Episodes]:
    for part in (slice(first), slice(first, None)):
        yield Episodes(
            episodes.frames[part], episodes.actions[part], episodes.tool[part], episodes.object[part]
        )


def _anneal(optimiser: torch.optim.Optimizer, rate: float, step: int, total: int) -> None:
    """A short linear warm-up, then a cosine to 1 % of `rate`."""
    warm = min(1.0, (step + 1) / min(100, total))
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / total))
    for group in optimiser.param_groups:
        group["lr"] = rate * warm * cosine
