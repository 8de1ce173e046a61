"""Writing the bundle of a V-JEPA 2-AC model. Needs torch and onnx; running it needs neither."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
import yaml

from perception.runtimes.onnx import file_sha256
from perception.vjepa2.checkpoint import VJepa2
from perception.vjepa2.config import LONGEST
from perception.vjepa2.export import Exported, export_encoder, export_predictor
from planner.bundle import DESCRIPTION, SCHEMA_VERSION
from planner.errors import BundleError
from planner.vjepa2_bundle import KIND, VJepa2AcInfo

# As published: 4 frames a second; xyz within the L1 ball of 0.075 m; 800 candidates, 10 times, the best 10
# refit; the gripper at most 0.75 of its stroke, and below 0.25 not at all.
PERIOD_S, BALL_M = 0.25, 0.075
SEARCH = {
    "samples": 800,
    "iterations": 10,
    "elites": 10,
    "closedness": 0.75,
    "closedness_least": 0.25,
}
# The Franka hand: the tool points straight down; a finger's way is 0.04 m.
POSE = {"euler": (3.141592653589793, 0.0, 0.0), "open_m": 0.04, "closed_m": 0.0}
# Reach and height of the Franka arm as in its data sheet. Its robot file's workspace is narrower, and the
# safety gate keeps the arm in that.
LOW, HIGH = (-0.855, -0.855, 0.0, 0.0), (0.855, 0.855, 1.19, 0.04)

CARD = """# {name}

V-JEPA 2-AC ({model}) as a bundle of jepa-arm, converted from the official file `{file}`
(sha256 `{sha256}`) by

```
jepa-arm convert-vjepa2 {file} --out models/{name}{options}
```

Encoder and action-conditioned predictor of Assran et al. 2025 (arXiv:2506.09985), as ONNX graphs; the largest
difference from torch is {encoder_gap:.1e} and {predictor_gap:.1e}. The weights are their authors', under the
licence they were published with.

- **Input**: {size}x{size} RGB. **Latent**: {dim} numbers, the layer-normed features of all patches.
- **Actions**: tool displacement on x, y, z within an L1 ball of {ball} m, and the gripper; {period} s each.
- **Planner**: `cem`, {samples} candidates, {iterations} times; energy: mean absolute difference of features.
- It has no reflex and no learned time-to-go: a pursuit ends when it is cancelled or its time is up. Its
  surprise is not calibrated, so it never slows or stops the arm for it.
"""


def write_bundle(model: VJepa2, source: Path, out: Path, robot: str, horizon: int = 1) -> dict[str, float]:
    """Write the bundle of a model with a predictor to `out`, whole or not at all.

    It plans `horizon` steps of 0.25 s ahead. Returns the largest difference between torch and ONNX Runtime
    for each graph. Raises BundleError if `out` exists, the model has no predictor of actions or the horizon
    is none of 1 to 32, ModelError if a graph differs by more than 1e-4.
    """
    out = out.resolve()
    if model.predictor is None:
        raise BundleError(
            f"{model.name} is an encoder alone, which plans nothing: convert a model such as vitg-ac"
        )
    if not 1 <= horizon <= LONGEST:
        raise BundleError(f"a plan cannot be of {horizon} steps: name a --horizon from 1 to {LONGEST}")
    if out.exists():
        raise BundleError(f"{out} exists: name another --out, or remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".converting-") as folder:
        staging = Path(folder) / out.name
        staging.mkdir()
        encoder = export_encoder(model.encoder, staging / "encoder.onnx")
        predictor = export_predictor(model.predictor, horizon, staging / "predictor.onnx")
        info = _description(model, source, out.name, robot, horizon, encoder, predictor)
        content = yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False)
        (staging / DESCRIPTION).write_text(content)
        (staging / "README.md").write_text(_card(info))
        staging.rename(out)
    return {"encoder": encoder.gap, "predictor": predictor.gap}


def _description(
    model: VJepa2, source: Path, name: str, robot: str, horizon: int, encoder: Exported, predictor: Exported
) -> VJepa2AcInfo:
    config = model.encoder.config
    files = {
        "encoder": encoder.graph,
        "encoder_weights": encoder.weights,
        "predictor": predictor.graph,
        "predictor_weights": predictor.weights,
    }
    return VJepa2AcInfo.model_validate(
        {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "name": name,
            "model": model.name,
            "task": "any",
            "robot": robot,
            "image_size": config.image_size,
            "latent_dim": config.tokens_per_frame * config.layers.width,
            "action": {
                "axes": ("x", "y", "z", "gripper"),
                "limit_m": BALL_M,
                "period_s": PERIOD_S,
                "block": 1,
            },
            "tool": {"mean": (0.0,) * 4, "std": (1.0,) * 4, "low": LOW, "high": HIGH},
            "pose": POSE,
            "search": {**SEARCH, "horizon": horizon},
            "graphs": {key: {"file": file.name, "sha256": file_sha256(file)} for key, file in files.items()},
            "training": {
                "source": source.name,
                "source_sha256": file_sha256(source),
                "torch": torch.__version__,
            },
            "metrics": {"encoder_gap": encoder.gap, "predictor_gap": predictor.gap},
        }
    )


def _card(info: VJepa2AcInfo) -> str:
    return CARD.format(
        name=info.name,
        model=info.model,
        file=info.training["source"],
        sha256=info.training["source_sha256"],
        options="" if info.model == "vitg-ac" else f" --model {info.model}",
        encoder_gap=info.metrics["encoder_gap"],
        predictor_gap=info.metrics["predictor_gap"],
        size=info.image_size,
        dim=info.latent_dim,
        ball=info.action.limit_m,
        period=info.action.period_s,
        samples=info.search.samples,
        iterations=info.search.iterations,
    )
