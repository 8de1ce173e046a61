"""The model card that goes with a bundle, written from what the bundle says of itself."""

from __future__ import annotations

import yaml

from perception.jepa.config import TrainConfig
from planner.bundle import BundleInfo

CARD = """# {name}

A JEPA world model for the arm `{robot}` and the task `{task}`: an encoder, an action-conditioned predictor,
a goal-conditioned reflex (Mode-1) and a learned time-to-go energy, as ONNX graphs. {made_for}

- **Data**: {data}; the last {held_out:.0%} of the episodes were held out for the figures below.
- **Training**: {world_model_steps} world-model steps and {head_steps} head steps, seed {seed}, \
{hours:.2f} hours on {threads} CPU thread(s), torch {torch}.
- **Input**: {width}x{height} RGB, cropped and area-averaged to {image_size}x{image_size}.
- **Actions**: tool displacement on {axes}, ±{limit_m} m over {period_s} s; {block} to a model step.

## Held-out metrics
| metric | value |
|---|---|
{metrics}

`open_loop_normalised` is the 8-step prediction error as a share of that of standing still.

## Made by
```
{made_by}
```
{recipe}
{judged}

## Training settings
```yaml
{config}```
"""

# What only one of the two kinds of data lets one say: play of the simulator, and recordings of an arm.
SIMULATOR = {
    "made_for": """Made for the simulated
camera and table of this repository; it knows nothing of other cameras, objects or arms.""",
    "data": "{episodes} episodes of play, {steps_per_episode} actions each ({rate_hz:g} Hz), "
    "seed {data_seed}; {same}no evaluation goal is among them",
    "made_by": """\
jepa-arm collect --task {task} --robot {robot} --episodes {episodes} --seed {data_seed}{same_options} \
--out data/{name}
jepa-arm train --data data/{name} --out runs/{name}{train_options}
jepa-arm export --run runs/{name} --data data/{name} --out models/{name} --force""",
    "judged": """\
Success rates, with intervals and baselines, are in the README of the repository, beside the command that
measures them.""",
}
RECORDED = {
    "made_for": """Made for the arm,
camera and table that it was recorded with, as they stood; it knows nothing of others.""",
    "data": "{episodes} pieces of recorded episodes, {steps_per_episode} actions each ({rate_hz:g} Hz)",
    "made_by": """\
jepa-arm record --robot {robot} --arm … --camera … --task {task} --out data/{name}
jepa-arm train --data data/{name} --out runs/{name}{train_options}
jepa-arm export --run runs/{name} --data runs/{name}/data --out models/{name} --force""",
    "judged": """\
How often it reaches its goals nobody has measured: the simulator cannot show what was recorded. Try it on
the arm:
```
jepa-arm up --bundle models/{name} --robot {robot} --arm … --camera …
jepa-arm snapshot goal.png
jepa-arm pursue goal.png
```""",
}


def model_card(info: BundleInfo) -> str:
    """Markdown for the bundle's README.md."""
    training, config = info.training, info.training["config"]
    recipe = {key: value for key, value in config.items() if value != getattr(TrainConfig(), key)}
    same = training.get("same", ())
    facts = {
        **{key: training[key] for key in ("episodes", "steps_per_episode", "data_seed", "world_model_steps")},
        **{key: training[key] for key in ("head_steps", "hours", "torch")},
        "name": info.name,
        "robot": info.robot,
        "task": info.task,
        "rate_hz": 1 / info.action.period_s,
        "same": f"the same {' and '.join(same)} throughout; " if same else "",
        "same_options": "".join(f" --same {group}" for group in same),
        "train_options": " --config recipe.yaml" if recipe else "",
    }
    said = RECORDED if info.recorded else SIMULATOR
    return CARD.format(
        **facts,
        **{part: text.format(**facts) for part, text in said.items()},
        held_out=config["held_out_share"],
        seed=config["seed"],
        threads=config["threads"],
        width=info.camera.width,
        height=info.camera.height,
        image_size=info.image_size,
        axes=", ".join(info.action.axes),
        limit_m=info.action.limit_m,
        period_s=info.action.period_s,
        block=info.action.block,
        metrics="\n".join(f"| {name} | {value:.4f} |" for name, value in info.metrics.items()),
        recipe=f"where `recipe.yaml` holds\n```yaml\n{yaml.safe_dump(recipe)}```\n" if recipe else "",
        config=yaml.safe_dump(config, sort_keys=False),
    )
