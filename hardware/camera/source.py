"""The text that names a camera, in `--camera`, in launch files and in what `jepa-arm cameras` prints.

realsense                                   the only RealSense that is plugged in
realsense:839112060123,depth=on             that one, with depth
realsense:table.db3                         a recording of one
uvc:/dev/video0,size=1280x720,fps=30        a webcam
file:recordings/table.mp4                   a video, or a folder of pictures
my_package.cameras:MyCamera:anything        MyCamera("anything", rate_hz, frame_id): a `Camera` of your own
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hardware.camera.contract import Camera
from hardware.errors import CameraError

KINDS = "realsense[:SERIAL], realsense:FILE.db3, uvc:DEVICE, file:PATH or module:callable[:SOURCE]"


@dataclass(frozen=True)
class CameraSource:
    """A camera that can be made. `size` is (width, height) of its pictures, None where its file knows.

    `live`: a device, which is opened again when it was lost; a recording is not.
    """

    text: str
    make: Callable[[], Camera]
    size: tuple[int, int] | None
    live: bool


def camera_source(text: str, rate_hz: float, frame_id: str) -> CameraSource:
    """The camera that `text` names. Opens nothing. Raises `CameraError` for what is no such text.

    `rate_hz` is that of the robot file; `fps=` in the text comes before it.
    """
    place, *pairs = re.split(r",(?=\w+=)", text)
    kind, _, where = place.partition(":")
    options = dict(pair.split("=", 1) for pair in pairs)
    try:
        if kind == "realsense" and where.endswith(".db3"):
            recording = _Recording.model_validate(options)
            return CameraSource(text, lambda: _play(where, recording, frame_id), None, live=False)
        if kind == "realsense":
            realsense = _RealSense.model_validate({"fps": rate_hz, **options})
            return CameraSource(
                text, lambda: _realsense(where, realsense, frame_id), realsense.size, live=True
            )
        if kind == "uvc" and where:
            uvc = _Uvc.model_validate({"fps": rate_hz, **options})
            return CameraSource(text, lambda: _uvc(where, uvc, frame_id), uvc.size, live=True)
        if kind == "file" and where:
            file = _File.model_validate({"fps": rate_hz, **options})
            return CameraSource(text, lambda: _file(where, file, frame_id), None, live=False)
    except ValidationError as error:
        raise CameraError(f"camera {text}: {_first_problem(error)}") from error
    module, _, callable_and_source = place.partition(":")
    name, _, source = callable_and_source.partition(":")
    if not module or not name or options:
        raise CameraError(f"camera {text or '(none)'} is not understood; say {KINDS}")
    factory = _import(text, module, name)
    return CameraSource(text, lambda: factory(source, rate_hz, frame_id), None, live=True)


def _size(text: object) -> object:
    match = re.fullmatch(r"(\d+)x(\d+)", str(text))
    if not match:
        raise ValueError("write it as WIDTHxHEIGHT in pixels, such as 640x480")
    return int(match[1]), int(match[2])


Pixels = Annotated[int, Field(gt=0)]
Size = Annotated[tuple[Pixels, Pixels], BeforeValidator(_size)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class _File(_Options):
    fps: Positive


class _Recording(_Options):
    depth: Literal["on", "off"] = "off"


class _Uvc(_Options):
    fps: Positive
    size: Size = "640x480"  # type: ignore[assignment]
    exposure_ms: Positive | None = None
    white_balance_k: Positive | None = None


class _RealSense(_Uvc):
    depth: Literal["on", "off"] = "off"


def _realsense(serial: str, options: _RealSense, frame_id: str) -> Camera:
    from hardware.camera.realsense import RealSenseCamera

    return RealSenseCamera(
        serial,
        options.size,
        options.fps,
        depth=options.depth == "on",
        exposure_ms=options.exposure_ms,
        white_balance_k=options.white_balance_k,
        frame_id=frame_id,
    )


def _play(path: str, options: _Recording, frame_id: str) -> Camera:
    from hardware.camera.realsense import RealSenseRecording

    return RealSenseRecording(path, depth=options.depth == "on", frame_id=frame_id)


def _uvc(device: str, options: _Uvc, frame_id: str) -> Camera:
    from hardware.camera.uvc import UvcCamera

    return UvcCamera(
        device, options.size, options.fps, options.exposure_ms, options.white_balance_k, frame_id=frame_id
    )


def _file(path: str, options: _File, frame_id: str) -> Camera:
    from hardware.camera.file import FileCamera

    return FileCamera(path, options.fps, frame_id)


def _import(text: str, module: str, name: str) -> Callable[..., Camera]:
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CameraError(
            f"camera {text} names nothing that can be imported ({error}); say {KINDS}"
        ) from error


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors()[0]
    key = problem["loc"][0]
    if problem["type"] == "extra_forbidden":
        return f"there is no option {key} for this kind of camera"
    return f"{key}={problem['input']}: {problem['msg'].removeprefix('Value error, ')}"
