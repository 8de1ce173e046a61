"""The world-model bundle: one folder that any node, tool or robot loads; see `bundle.yaml` inside it.

    bundle = load_bundle(Path("models/panda-push"))
    encoder, world_model = bundle.encoder(), bundle.world_model()

Graphs run on ONNX Runtime, or on what `bundle.on(variant)` names (`planner.runtimes` chooses one).
Every file is checked against its sha256. A bundle that does not fit the robot or camera it is started with
is refused by `check_fits`, naming the mismatch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from perception.encoder import Encoder, GraphEncoder
from perception.runtimes.contract import FrameSession, Session, Variant
from perception.runtimes.onnx import file_sha256
from perception.runtimes.registry import REFERENCE, open_frame_session, open_session
from perception.surprise import SCORES, Yardstick
from planner.errors import BundleError
from planner.held_out import HeldOut, read_held_out

if TYPE_CHECKING:
    from planner.world_model import WorldModel

DESCRIPTION = "bundle.yaml"
SCHEMA_VERSION = 1


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ActionSpace(_Section):
    """Tool displacement in metres over `period_s` seconds on `axes`, each within ±`limit_m`.

    `block` actions make one step of the world model; the `fixed` axes are held at their values in metres.
    """

    axes: tuple[Literal["x", "y", "z", "gripper"], ...] = Field(min_length=1)
    limit_m: float = Field(gt=0)
    period_s: float = Field(gt=0)
    block: int = Field(ge=1)
    fixed: dict[str, float] = {}

    @property
    def dim(self) -> int:
        return len(self.axes)

    @property
    def step_ns(self) -> int:
        """Duration of one step of the world model."""
        return round(self.block * self.period_s * 1e9)


class Camera(_Section):
    """The camera the model was trained with; pose in metres in the robot's base frame, angles in rad."""

    frame_id: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    vertical_fov: float
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]
    rate_hz: float = Field(gt=0)


class ToolNormalisation(_Section):
    """Proprioception is the tool state (P,) in metres: position, and the gripper's joint where there is one.

    The model takes (value − mean) / std; `low` and `high` are the range that it was trained on.
    """

    mean: tuple[float, ...] = Field(min_length=3, max_length=4)
    std: tuple[PositiveFloat, ...] = Field(min_length=3, max_length=4)
    low: tuple[float, ...] = Field(min_length=3, max_length=4)
    high: tuple[float, ...] = Field(min_length=3, max_length=4)

    @model_validator(mode="after")
    def _is_of_one_length(self) -> ToolNormalisation:
        lengths = [len(values) for values in (self.mean, self.std, self.low, self.high)]
        if len(set(lengths)) > 1:
            raise ValueError(f"mean, std, low and high are of {', '.join(map(str, lengths))} numbers")
        return self

    @property
    def dim(self) -> int:
        return len(self.mean)


class Graph(_Section):
    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Graphs(_Section):
    encoder: Graph
    predictor: Graph
    proposal: Graph
    energy: Graph

    @property
    def all(self) -> tuple[Graph, ...]:
        return self.encoder, self.predictor, self.proposal, self.energy


class Surprise(_Section):
    """The calibration of `perception.surprise`: the file of its yardstick's arrays, the unit of each score,
    and the surprise that slows, holds and stops the arm, by quantiles over whole held-out `episodes`.
    """

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scales: dict[str, PositiveFloat]
    slow: PositiveFloat
    hold: PositiveFloat
    stop: PositiveFloat
    episodes: int = Field(ge=1)

    @field_validator("scales")
    @classmethod
    def _has_every_score(cls, scales: dict[str, float]) -> dict[str, float]:
        if set(scales) != set(SCORES):
            raise ValueError(f"the scores are {', '.join(SCORES)}, not {', '.join(scales)}")
        return scales


class HeldOutFile(_Section):
    """A sample of episodes that nothing was trained on, for the check of runtimes (`planner.accuracy`)."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class BundleInfo(_Section):
    """The content of `bundle.yaml`."""

    schema_version: Literal[1]
    name: str
    task: str
    robot: str
    camera: Camera
    image_size: int = Field(gt=0)
    latent_dim: int = Field(gt=0)
    max_steps: int = Field(gt=0, description="the furthest goal, in model steps, that heads were trained on")
    action: ActionSpace
    tool: ToolNormalisation
    graphs: Graphs
    surprise: Surprise
    held_out: HeldOutFile | None = None
    training: dict[str, Any]
    metrics: dict[str, float]

    @property
    def recorded(self) -> bool:
        """Whether it was trained on recordings of an arm, which no simulator can show again."""
        return bool(self.training.get("data_source") == "recorded")


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; models load when asked for, and run on `variant`."""

    path: Path
    info: BundleInfo
    variant: Variant = REFERENCE

    def on(self, variant: Variant) -> Bundle:
        """This bundle with its graphs on another runtime or in another precision."""
        return replace(self, variant=variant)

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def robot(self) -> str:
        return self.info.robot

    @property
    def action(self) -> ActionSpace:
        return self.info.action

    @property
    def camera(self) -> Camera:
        return self.info.camera

    @property
    def encoder_sha256(self) -> str:
        return self.info.graphs.encoder.sha256

    def encoder(self) -> Encoder:
        graph, promised = self.info.graphs.encoder, self.info
        path = self.path / graph.file
        found = GraphEncoder(open_session(self.variant, path, graph.sha256), path, graph.sha256)
        if (found.spec.image_size, found.spec.latent_dim) != (promised.image_size, promised.latent_dim):
            raise BundleError(
                f"{path} takes {found.spec.image_size} px and gives {found.spec.latent_dim} numbers; "
                f"{DESCRIPTION} says {promised.image_size} and {promised.latent_dim}: export the bundle again"
            )
        return found

    def frame_encoder(self) -> FrameSession:
        """The encoder with preprocessing before it, for the camera's frames, which may be on the GPU already.

        Raises ModelError on a runtime that cannot have it (onnxruntime, openvino).
        """
        graph, camera = self.info.graphs.encoder, self.camera
        path = self.path / graph.file
        return open_frame_session(self.variant, path, graph.sha256, camera.height, camera.width)

    def world_model(self) -> WorldModel:
        """Predictor, proposal and energy."""
        from planner.world_model import WorldModel

        return WorldModel(self)

    def held_out(self) -> HeldOut | None:
        """The sample of held-out episodes, if the bundle carries one. Raises BundleError if it is damaged."""
        if self.info.held_out is None:
            return None
        block_dim = self.action.block * self.action.dim
        path = self.path / self.info.held_out.file
        return read_held_out(path, self.info.image_size, self.info.tool.dim, block_dim)

    def yardstick(self) -> Yardstick:
        """What surprise is measured by. Raises BundleError if the file is not as described."""
        path, size, tool = self.path / self.info.surprise.file, self.info.latent_dim, self.info.tool.dim
        expected = {
            "error_whitening": (size, size),
            "latent_whitening": (size, size),
            "latent_mean": (size,),
            "tool_std": (tool,),
        }
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name], np.float32) for name in expected}
        except Exception as error:  # whatever the parsers of zip and header make of damaged bytes
            raise BundleError(f"{path} cannot be read ({error}): export the bundle again") from error
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected or not all(np.isfinite(array).all() for array in arrays.values()):
            raise BundleError(
                f"{path} holds {found}; by {DESCRIPTION} it should hold finite {expected}: "
                "export the bundle again"
            )
        return Yardstick(**arrays)

    def open(self, graph: Graph, inputs: dict[str, int], optional: dict[str, int] | None = None) -> Session:
        """One of the bundle's graphs, which takes `inputs` of these widths, on the bundle's runtime; it may
        take `optional` ones too."""
        path = self.path / graph.file
        session = open_session(self.variant, path, graph.sha256)
        found = {port.name: port.row[-1] for port in session.inputs}
        may_take = inputs | {name: width for name, width in (optional or {}).items() if name in found}
        if found != may_take:
            raise BundleError(
                f"{path} takes {found}; by {DESCRIPTION} it should take {may_take}: export the bundle again"
            )
        return session

    def check_fits(self, robot: str, camera_size: tuple[int, int] | None = None) -> None:
        """Raise BundleError if the bundle was not made for `robot` and a camera of (width, height) pixels."""
        if robot != self.robot:
            raise BundleError(
                f"bundle {self.name} was trained for robot {self.robot}, not {robot}: "
                f"start it with --robot {self.robot}, or train a bundle for {robot}"
            )
        expected = (self.camera.width, self.camera.height)
        if camera_size is not None and tuple(camera_size) != expected:
            raise BundleError(
                f"bundle {self.name} was trained on {expected[0]}x{expected[1]} pictures, the camera gives "
                f"{camera_size[0]}x{camera_size[1]}: set the camera to {expected[0]}x{expected[1]}"
            )


def load_bundle(path: Path) -> Bundle:
    """Load and check a bundle: its description and the sha256 of every file. Raises BundleError."""
    path = Path(path)
    description = path / DESCRIPTION
    if not description.is_file():
        raise BundleError(f"{path} holds no {DESCRIPTION}: name a bundle folder, such as models/panda-push")
    try:
        content = yaml.safe_load(description.read_text())
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{description} has schema_version {version!r}, this release reads {SCHEMA_VERSION}: "
                "export the bundle again with this release"
            )
        if content.get("kind") == "vjepa2-ac":
            from planner.vjepa2_bundle import read_bundle

            return read_bundle(path, content)
        info = BundleInfo.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{description} is not YAML: {error}; export the bundle again") from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise BundleError(f"{description}: {key}: {problem['msg']}; export the bundle again") from error
    optional = () if info.held_out is None else (info.held_out,)
    for part in (*info.graphs.all, info.surprise, *optional):
        file = path / part.file
        if not file.is_file():
            raise BundleError(f"{file} is missing: export the bundle again, or check it out of git again")
        if file_sha256(file) != part.sha256:
            raise BundleError(
                f"{file} is not the file that {DESCRIPTION} names (sha256 differs): "
                "export the bundle again, or check it out of git again"
            )
    return Bundle(path, info)
