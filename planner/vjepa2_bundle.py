"""The bundle of an official V-JEPA 2-AC model: `kind: vjepa2-ac` in `bundle.yaml`.

It stands where any other bundle stands: encoder node, planner node and receding-horizon loop take it as it
is. Its latent is the layer-normed features of all patches of a frame in a row. It has no reflex and no
learned time-to-go, and its surprise is not calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from perception.runtimes.onnx import file_sha256
from planner.bundle import ActionSpace, Bundle, Graph, ToolNormalisation, _Section
from planner.errors import BundleError

if TYPE_CHECKING:
    from planner.vjepa2_ac import VJepa2AcModel

KIND = "vjepa2-ac"


class Graphs(_Section):
    """Both graphs, and the files of their weights; each graph names the sha256 of its weights."""

    encoder: Graph
    encoder_weights: Graph
    predictor: Graph
    predictor_weights: Graph


class Tool(_Section):
    """How the arm's tool state (x, y, z, opening of the gripper's joint, all in m) becomes a pose (7,).

    `euler` in rad is the orientation, which the arm holds; openings are those of the robot file.
    """

    euler: tuple[float, float, float]
    open_m: float
    closed_m: float

    @model_validator(mode="after")
    def _opens(self) -> Tool:
        if self.open_m == self.closed_m:
            raise ValueError(f"open_m and closed_m are both {self.open_m:g}: the gripper does not move")
        return self


class Search(_Section):
    """The cross-entropy search: actions in an L1 ball, `closedness` change of the gripper at most, per step.

    A change below `closedness_least` is none, so that the fingers do not follow the noise. `horizon` is that
    of the predictor's graph.
    """

    samples: int = Field(ge=2)
    iterations: int = Field(ge=1)
    elites: int = Field(ge=1)
    horizon: int = Field(ge=1, le=32)
    closedness: float = Field(gt=0, le=1)
    closedness_least: float = Field(ge=0)


class VJepa2AcInfo(_Section):
    """The content of `bundle.yaml`. `action.limit_m` is the radius of the L1 ball of x, y, z."""

    schema_version: Literal[1]
    kind: Literal["vjepa2-ac"]
    name: str
    model: str
    task: str
    robot: str
    image_size: int = Field(gt=0)
    latent_dim: int = Field(gt=0)
    action: ActionSpace
    tool: ToolNormalisation
    pose: Tool
    search: Search
    graphs: Graphs
    surprise: None = None
    training: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True)
class VJepa2AcBundle(Bundle):
    info: VJepa2AcInfo  # type: ignore[assignment]  # of the same use to whoever plans, but for what it lacks

    def world_model(self) -> VJepa2AcModel:  # type: ignore[override]
        """The predictor on ONNX Runtime: always the same one, as it takes more than a gigabyte."""
        return self._model

    @cached_property
    def _model(self) -> VJepa2AcModel:
        from planner.vjepa2_ac import VJepa2AcModel

        return VJepa2AcModel(self)

    def check_fits(self, robot: str, camera_size: tuple[int, int] | None = None) -> None:
        """Raise BundleError if it was not made for `robot`, or the camera's picture is too small for it."""
        if robot != self.robot:
            raise BundleError(
                f"bundle {self.name} was made for robot {self.robot}, not {robot}: "
                f"start it with --robot {self.robot}, or convert the model with --robot {robot}"
            )
        size = self.info.image_size
        if camera_size is not None and min(camera_size) < size:
            raise BundleError(
                f"bundle {self.name} sees {size}x{size} pixels, the camera gives "
                f"{camera_size[0]}x{camera_size[1]}: set the camera of {robot} to {size}x{size} or more"
            )


def read_bundle(path: Path, content: Mapping[str, Any]) -> VJepa2AcBundle:
    """The bundle at `path` whose `bundle.yaml` holds `content`, its files checked.

    Raises BundleError, and pydantic's ValidationError for content that is wrong.
    """
    info = VJepa2AcInfo.model_validate(content)
    for _, part in info.graphs:
        file = path / part.file
        if not file.is_file():
            raise BundleError(f"{file} is missing: convert the model again")
        if file_sha256(file) != part.sha256:
            raise BundleError(
                f"{file} is not the file that bundle.yaml names (sha256 differs): convert it again"
            )
    return VJepa2AcBundle(path, info)
