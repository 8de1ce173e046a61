"""The cells of `eval --suite full`: which there are, and the folder that keeps what was measured in each.

log = CellLog(out / "cells" / cell.name, bundle)
log.append(result)              # one line of JSON; a run that is cut loses no finished episode
CellLog(...).results            # by seed
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perception.runtimes.onnx import file_sha256
from planner.bundle import DESCRIPTION, Bundle
from sim.errors import SimulationError
from sim.results import EpisodeResult
from sim.tasks import Task

NOMINAL = "none"
# Perturbations are measured with this planner only.
PERTURBED_PLANNER = "mode2"
OF_THE_OBJECT = ("friction-mass", "size")


@dataclass(frozen=True)
class Cell:
    """One entry of the table: a task, who plans, and what differs from the nominal scene."""

    task: str
    planner: str
    perturbation: str

    @property
    def name(self) -> str:
        return f"{self.task}.{self.planner}.{self.perturbation}"

    @property
    def row(self) -> str:
        """What a table calls it beside other cells of its task."""
        return self.planner if self.perturbation == NOMINAL else f"{self.planner}, {self.perturbation}"


def cells_of(task: Task, planners: Sequence[str], perturbations: Sequence[str]) -> list[Cell]:
    """Every planner in the nominal scene, then Mode-2 under each perturbation that the task can feel."""
    nominal = [Cell(task.name, planner, NOMINAL) for planner in planners]
    if PERTURBED_PLANNER not in planners:
        return nominal
    felt = [name for name in perturbations if task.block is not None or name not in OF_THE_OBJECT]
    return nominal + [Cell(task.name, PERTURBED_PLANNER, name) for name in felt if name != NOMINAL]


class CellLog:
    """The finished episodes of one cell, kept in `folder` as they come. `results` are by seed."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        """Raises SimulationError if the folder holds episodes of another bundle, or what cannot be read."""
        self.folder = folder
        self._episodes = folder / "episodes.jsonl"
        settings = {"bundle": bundle.name, "bundle_sha256": file_sha256(bundle.path / DESCRIPTION)}
        self._keep_settings(folder / "settings.json", settings)
        self.results = self._read()

    def append(self, result: EpisodeResult) -> None:
        line = json.dumps(_without_nan(asdict(result)), separators=(",", ":"))
        with self._episodes.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.results[result.seed] = result

    def _keep_settings(self, path: Path, settings: dict[str, str]) -> None:
        try:
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            found = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SimulationError(f"cannot write {path}: {error.strerror}; name another --out") from error
        except ValueError as error:
            raise SimulationError(f"{path} is damaged ({error}): delete {self.folder}") from error
        if found != settings:
            raise SimulationError(
                f"{self.folder} holds episodes of {_words(found)}, this is {_words(settings)}: "
                "name another --out, or delete that folder to measure it anew"
            )

    def _read(self) -> dict[int, EpisodeResult]:
        if not self._episodes.exists():
            return {}
        content = self._episodes.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            # The run was cut within a line: that episode is run again.
            self._episodes.write_bytes(whole)
        try:
            results = [_episode(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise SimulationError(f"{self._episodes} is damaged ({error}): delete {self.folder}") from error
        return {result.seed: result for result in results}


def _words(settings: dict[str, str]) -> str:
    return f"bundle {settings.get('bundle')} (sha256 {settings.get('bundle_sha256', '')[:12]}…)"


def _without_nan(value: Any) -> Any:
    """`value` as JSON can hold it, to five decimals; null for what is not finite."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value


def _episode(content: dict[str, Any]) -> EpisodeResult:
    for name in ("energies", "surprises"):
        content[name] = [math.nan if value is None else value for value in content[name]]
    return EpisodeResult(**content)
