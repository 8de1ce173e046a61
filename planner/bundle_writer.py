"""Writing a bundle. Needs torch and onnx; running a bundle needs neither."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch
import yaml
from safetensors.torch import save
from torch import nn

from perception.dataset import DatasetInfo, Episodes, read_description, read_shard
from perception.jepa.config import TrainConfig
from perception.jepa.model import Encoder, Energy, Predictor, Proposal
from perception.jepa.trainer import held_out_sessions
from perception.runtimes.contract import WEIGHTS
from perception.runtimes.modules import StepsToGo
from perception.runtimes.onnx import OnnxSession, file_sha256
from perception.vjepa2.frozen import FrozenEncoder, Readout, load_frozen
from planner.bundle import DESCRIPTION, SCHEMA_VERSION, BundleInfo
from planner.errors import BundleError
from planner.held_out import FILE as HELD_OUT
from planner.held_out import HeldOut, sample_held_out
from planner.model_card import model_card

OPSET = 20
YARDSTICK = "surprise.npz"
PARITY_TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Graph:
    """A module and how its ONNX inputs and outputs are called; `inputs` are examples with a batch of 2."""

    name: str
    module: nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]


def export_bundle(
    state: dict[str, Any], out: Path, replace: bool = False, held_out: HeldOut | None = None
) -> dict[str, float]:
    """Write the bundle of a training checkpoint to `out`, whole or not at all, with `held_out` in it.

    Returns the largest difference between torch and ONNX Runtime for each graph. Raises BundleError if one
    exceeds 1e-4, if training has not finished, if `out` exists and `replace` is false, or if it is no bundle.
    """
    out = out.resolve()
    info, config = DatasetInfo.model_validate(state["info"]), TrainConfig.model_validate(state["config"])
    steps, head_steps, _ = state["progress"]
    if steps < config.steps or head_steps < config.head_steps:
        raise BundleError("the run has not finished training: run `jepa-arm train` again to go on with it")
    if out.exists() and not (out / DESCRIPTION).is_file():
        raise BundleError(f"{out} exists and is no bundle, so it is not replaced: name another --out")
    if out.exists() and not replace:
        raise BundleError(f"{out} exists: name another --out, or replace it with --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".exporting-") as folder:
        staging = Path(folder) / out.name
        staging.mkdir()
        graphs = _graphs(state, info, config)
        gaps = {graph.name: _export(graph, staging / f"{graph.name}.onnx") for graph in graphs}
        weights = {
            # Half precision is enough to train on from, and half the download.
            f"{name}.{key}": (value.half() if value.is_floating_point() else value).contiguous()
            for name, model in state["models"].items()
            for key, value in model.items()
        }
        # Its own way to a file lets nobody else read it, such as the container on a robot.
        (staging / WEIGHTS).write_bytes(save(weights))
        np.savez(staging / YARDSTICK, **state["surprise"]["yardstick"])
        if held_out is not None:
            held_out.write(staging / HELD_OUT)
        description = _description(state, info, config, out.name, staging)
        content = yaml.safe_dump(description.model_dump(mode="json"), sort_keys=False)
        (staging / DESCRIPTION).write_text(content)
        (staging / "README.md").write_text(model_card(description))
        _put_in_place(staging, out, Path(folder) / "replaced")
    return gaps


def held_out_of(state: dict[str, Any], data: Path) -> HeldOut:
    """A sample of the episodes in `data` that the run of `state` held out.

    Raises BundleError if the run was trained on other data, DatasetError if a file is missing or damaged.
    """
    info, config = DatasetInfo.model_validate(state["info"]), TrainConfig.model_validate(state["config"])
    if read_description(data) != info:
        raise BundleError(f"the run was not trained on {data}: name the --data that `jepa-arm train` had")
    first = (info.episodes // info.session - held_out_sessions(info, config)) * info.session
    shards = range(first // info.episodes_per_shard, info.shards)
    parts = [read_shard(data, index, info) for index in shards]
    skipped = first - shards.start * info.episodes_per_shard
    frames, actions, tool, objects = (
        np.concatenate([getattr(part, name) for part in parts])[skipped:]
        for name in ("frames", "actions", "tool", "object")
    )
    return sample_held_out(Episodes(frames, actions, tool, objects), config.block, info.action_limit_m)


def _put_in_place(staging: Path, out: Path, replaced: Path) -> None:
    """Rename `staging` to `out`; what is there now moves to `replaced`, or stays if this fails."""
    if not out.exists():
        staging.rename(out)
        return
    out.rename(replaced)
    try:
        staging.rename(out)
    except OSError:
        replaced.rename(out)
        raise


def _graphs(state: dict[str, Any], info: DatasetInfo, config: TrainConfig) -> list[_Graph]:
    size, block_dim = config.latent_dim, config.block * len(info.axes)
    predictor = Predictor(size, info.tool_dim, block_dim)
    told = info.tool_dim if config.heads_told_tool else 0
    proposal = Proposal(size, block_dim, config.max_steps, told)
    energy = Energy(size, config.max_steps, told)
    encoder: nn.Module = Encoder(info.image_size, size)
    if config.encoder is not None:
        frozen = load_frozen(config.encoder, config.encoder_weights, state["frozen"]["sha256"])
        encoder = readout = Readout(state["models"]["encoder"]["layers.0.weight"].shape[1], size)
    modules = {"encoder": encoder, "predictor": predictor, "proposal": proposal, "energy": energy}
    for name, module in modules.items():
        module.load_state_dict(state["models"][name])
        module.eval()
    if config.encoder is not None:
        encoder = FrozenEncoder(frozen.features, readout).eval()
    random = torch.Generator().manual_seed(0)

    def latents() -> torch.Tensor:
        return torch.randn(2, size, generator=random)

    pixels = torch.randint(
        0, 256, (2, info.image_size, info.image_size, 3), generator=random, dtype=torch.uint8
    )
    actions = torch.rand(2, block_dim, generator=random) * 2 - 1
    tool = torch.randn(2, info.tool_dim, generator=random)
    of_heads = {"tool": tool} if told else {}
    step = {
        "latent": latents(),
        "previous": latents(),
        "tool": tool,
        "actions": actions,
    }
    return [
        _Graph("encoder", encoder, {"image": pixels}, ("latent",)),
        _Graph("predictor", predictor, step, ("next_latent", "next_tool")),
        _Graph(
            "proposal",
            proposal,
            {"latent": latents(), "goal": latents(), "steps_left": torch.full((2, 1), 3.5), **of_heads},
            ("actions", "logits"),
        ),
        _Graph(
            "energy",
            StepsToGo(energy),
            {"latent": latents(), "goal": latents(), **of_heads},
            ("steps_to_go",),
        ),
    ]


def _export(graph: _Graph, path: Path) -> float:
    """Write one graph, batch dynamic; its largest difference from torch, on other inputs and batch."""
    batch = torch.export.Dim("batch", min=1)
    # The exporter warns about packages and operators that have no part in these graphs.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple({0: batch} for _ in graph.inputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = onnxslim.slim(program.model_proto)
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return _parity(graph, path)


@torch.no_grad()
def _parity(graph: _Graph, path: Path) -> float:
    inputs = {name: torch.cat([value, value.flip(0), value]) for name, value in graph.inputs.items()}
    expected = graph.module(*inputs.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = OnnxSession(path).run({name: value.numpy() for name, value in inputs.items()})
    gap = float(np.max([np.abs(a.numpy() - b).max() for a, b in zip(expected, found, strict=True)]))
    if not gap <= PARITY_TOLERANCE:
        raise BundleError(
            f"{path.name} differs from torch by {gap:.2g}, more than {PARITY_TOLERANCE:g}: not exported"
        )
    return gap


def _description(
    state: dict[str, Any], info: DatasetInfo, config: TrainConfig, name: str, staging: Path
) -> BundleInfo:
    steps, head_steps, seconds = state["progress"]
    graphs = {
        graph: {"file": f"{graph}.onnx", "sha256": file_sha256(staging / f"{graph}.onnx")}
        for graph in ("encoder", "predictor", "proposal", "energy")
    }
    return BundleInfo.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "name": name,
            "task": info.task,
            "robot": info.robot,
            "camera": info.camera,
            "image_size": info.image_size,
            "latent_dim": config.latent_dim,
            "max_steps": config.max_steps,
            "action": {
                "axes": info.axes,
                "limit_m": info.action_limit_m,
                "period_s": info.period_s,
                "block": config.block,
                "fixed": info.fixed,
            },
            "tool": {name: [float(v) for v in values] for name, values in state["normaliser"].items()},
            "graphs": graphs,
            "surprise": {
                "file": YARDSTICK,
                "sha256": file_sha256(staging / YARDSTICK),
                "scales": state["surprise"]["scales"],
                **state["surprise"]["levels"],
                "episodes": state["surprise"]["episodes"],
            },
            "held_out": {"file": HELD_OUT, "sha256": file_sha256(staging / HELD_OUT)}
            if (staging / HELD_OUT).exists()
            else None,
            "training": {
                "episodes": info.episodes,
                "steps_per_episode": info.steps,
                "data_seed": info.seed,
                "same": list(info.same),
                "data_source": info.source,
                "world_model_steps": steps,
                "head_steps": head_steps,
                "hours": round(seconds / 3600, 3),
                "torch": torch.__version__,
                "config": config.model_dump(),
            },
            "metrics": state["health"],
        }
    )
