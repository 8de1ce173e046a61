"""What a training shows while it runs: a bar, the terms of its loss, and how its models fare."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from perception.errors import TrainingError

SMOOTHING = 0.98


class Report:
    """A progress bar with the smoothed terms, the same in TensorBoard, and the monitors line by line."""

    def __init__(self, phase: str, total: int, done: int, out: Path) -> None:
        self.phase = phase
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, TextColumn("{task.fields[terms]}"))
        self.task = self.bar.add_task(phase, total=total, completed=done, terms="")
        # A folder each: beginning a phase at step 0 in the folder of another would purge the other's curves.
        folder = out / "tensorboard" / phase.replace(" ", "_")
        self.board = SummaryWriter(str(folder), purge_step=done + 1)
        self.smooth: dict[str, float] = {}

    def __enter__(self) -> Report:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        with contextlib.suppress(OSError):  # a full disk was reported when it was written to
            self.board.close()

    def __call__(self, step: int, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            self.smooth[name] = SMOOTHING * self.smooth.get(name, value) + (1 - SMOOTHING) * value
        self.bar.update(
            self.task, completed=step, terms="  ".join(f"{k} {v:.4f}" for k, v in self.smooth.items())
        )
        if step % 10 == 0:
            self._draw(self.phase, step, terms)

    def health(self, step: int, values: dict[str, float]) -> None:
        self.bar.console.print(
            f"step {step}  " + "  ".join(f"{name} {value:.3f}" for name, value in values.items())
        )
        self._draw("health", step, values)

    def _draw(self, group: str, step: int, values: dict[str, float]) -> None:
        try:
            for name, value in values.items():
                self.board.add_scalar(f"{group}/{name}", value, step)
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.board.log_dir}: {error}; the last checkpoint is kept, free space and "
                "run the same command again"
            ) from error


class NoReport:
    """What the other processes than the first report."""

    def __enter__(self) -> NoReport:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, step: int, terms: dict[str, float]) -> None:
        pass

    def health(self, step: int, values: dict[str, float]) -> None:
        pass
