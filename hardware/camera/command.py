"""`jepa-arm cameras`: what is plugged in, by the names that `--camera` takes; and a look through one."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardware.camera.contract import Camera, Frame, Intrinsics
    from hardware.camera.health import StreamConfig, StreamHealth

EXAMPLE = "jepa-arm cameras --show realsense --save out/frame.png"
LOOK_S = 2.0
RATE_HZ = 30.0
READ_TIMEOUT_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--show", metavar="CAMERA", help="look through this camera: a name from the list, file:PATH, …"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the last picture of --show there")
    parser.add_argument(
        "--seconds", type=float, default=LOOK_S, help=f"how long to look (default: {LOOK_S:g})"
    )


def run(args: argparse.Namespace) -> int:
    from hardware.errors import CameraError

    if args.show is not None:
        return show(args.show, args.save, args.seconds)
    if args.save is not None:
        raise CameraError("--save needs a camera to look through: add --show CAMERA")
    lines, notes = cameras()
    width = max((len(name) for name, _ in lines), default=0)
    for name, what in lines:
        print(f"{name:<{width}}  {what}")
    if not lines:
        print("no camera is plugged in; file:PATH plays a video or a folder of pictures")
    for note in notes:
        print(f"note: {note}")
    return 0


def cameras() -> tuple[list[tuple[str, str]], list[str]]:
    """(the text for --camera, what it is) of every camera; and notes on what could not be looked for."""
    from hardware.camera import realsense, uvc
    from hardware.errors import CameraError

    lines, notes, has_realsense = [], [], True
    try:
        for found in realsense.connected():
            usb = f", USB {found.usb}" if found.usb else ""
            lines.append((f"realsense:{found.serial}", f"{found.name}{usb}"))
    except CameraError as error:
        has_realsense = False
        notes.append(f"RealSense cameras are not looked for: {error}")
    for device in uvc.connected():
        if has_realsense and "realsense" in device.name.lower():
            continue  # its single sensors, of which librealsense makes one camera
        lines.append((f"uvc:{device.by_id or device.device}", f"{device.name} ({device.device})"))
    return lines, notes


def show(text: str, save: Path | None, seconds: float) -> int:
    """Look through the camera `text` and say how its stream is. 0 if that is well, else 1."""
    from hardware.camera.health import StreamConfig, StreamState
    from hardware.camera.source import camera_source

    source = camera_source(text, RATE_HZ, "camera_optical_frame")
    camera = source.make()
    camera.open()
    try:
        frame, rate_hz, health = look(camera, StreamConfig(size=source.size), seconds)
        lens = getattr(camera, "intrinsics", None)
    finally:
        camera.close()
    if frame is not None:
        print(describe(frame, rate_hz, lens))
        if save is not None:
            write(frame, save)
    fine = health.state in (StreamState.OK, StreamState.ENDED)
    print(f"{text}: {health.state.value}{health.text and ': ' + health.text}")
    return 0 if fine and frame is not None else 1


def look(camera: Camera, config: StreamConfig, seconds: float) -> tuple[Frame | None, float, StreamHealth]:
    """The last frame, be it usable or not; frames a second; how the stream is."""
    from hardware.camera.contract import NoNewFrame, RepeatedFrame, StreamEnded
    from hardware.camera.health import StreamMonitor

    monitor = StreamMonitor(config)
    frame: Frame | None = None
    started_s = first_s = last_s = time.monotonic()
    monitor.opened(started_s)
    count = 0
    while time.monotonic() - started_s < seconds:
        try:
            frame = camera.read(READ_TIMEOUT_S)
        except StreamEnded as error:
            monitor.ended(str(error))
            break
        except RepeatedFrame:
            monitor.repeated(time.monotonic())
            continue
        except NoNewFrame:
            continue
        last_s = time.monotonic()
        first_s = first_s if count else last_s
        count += 1
        monitor.take(frame, last_s)
    rate_hz = (count - 1) / (last_s - first_s) if count > 1 else 0.0
    return frame, rate_hz, monitor.health(time.monotonic())


def describe(frame: Frame, rate_hz: float, lens: Intrinsics | None) -> str:
    height, width, _ = frame.image.shape
    words = [f"{width}x{height} at {rate_hz:.1f} Hz, mean grey level {frame.image.mean():.0f} of 255"]
    if frame.depth_mm is not None:
        seen = frame.depth_mm > 0
        words.append(f"depth for {seen.mean():.0%} of the pixels")
    if lens is not None:
        words.append(f"fx {lens.fx:.1f}, fy {lens.fy:.1f}, cx {lens.cx:.1f}, cy {lens.cy:.1f} pixels")
    return "; ".join(words)


def write(frame: Frame, path: Path) -> None:
    """The picture, and beside it, as FILE-depth.png in whole millimetres, its depth if it has one."""
    import cv2

    from hardware.errors import CameraError

    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = {path: cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)}
    if frame.depth_mm is not None:
        pictures[path.with_name(f"{path.stem}-depth.png")] = frame.depth_mm
    for place, picture in pictures.items():
        encodable = place.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp")
        if not encodable or not cv2.imwrite(str(place), picture):
            raise CameraError(f"--save {place}: cannot be written; name a .png in a folder of yours")
        print(f"wrote {place}")
