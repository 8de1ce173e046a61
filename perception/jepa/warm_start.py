"""Beginning a training with what another one has learned: the weights of a bundle.

What tells tables, arms and light apart is much the same from task to task, so an encoder that has learned one
learns the next one sooner. The encoder has to fit; what depends on the arm's actions begins anew where these
are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from perception.errors import TrainingError
from perception.runtimes.contract import WEIGHTS

ENCODER = "encoder"


def start_from(bundle: Path, models: Mapping[str, nn.Module]) -> list[str]:
    """Load `models`, by name, from the weights in `bundle`; the names of those that fitted.

    Raises TrainingError if there are no weights, they are damaged, or the encoder is another one.
    """
    weights = _read(bundle / WEIGHTS)
    fitted = []
    for name, model in models.items():
        wanted = model.state_dict()
        found = {key: weights[f"{name}.{key}"] for key in wanted if f"{name}.{key}" in weights}
        if found.keys() == wanted.keys() and all(found[key].shape == wanted[key].shape for key in wanted):
            model.load_state_dict(found)
            fitted.append(name)
    if ENCODER not in fitted:
        raise TrainingError(
            f"the encoder of {bundle} is another one than this training's (size of the pictures, latent_dim, "
            "or a frozen encoder): name another bundle, or leave --from out"
        )
    return fitted


def _read(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise TrainingError(f"{path} does not exist: --from takes a bundle's folder, as models/panda-push")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise TrainingError(f"{path} is damaged ({error}): fetch or export the bundle again") from error
