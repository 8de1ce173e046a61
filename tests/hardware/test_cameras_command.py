"""`jepa-arm cameras`: the list, and a look through one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import cli
from hardware.camera import realsense, uvc
from hardware.errors import CameraError


@pytest.fixture
def plugged_in(monkeypatch):
    """Let exactly these be found."""

    def install(realsenses: list[realsense.Connected] | CameraError, webcams: list[uvc.Connected]) -> None:
        def connected() -> list[realsense.Connected]:
            if isinstance(realsenses, CameraError):
                raise realsenses
            return realsenses

        monkeypatch.setattr(realsense, "connected", connected)
        monkeypatch.setattr(uvc, "connected", lambda: webcams)

    return install


WEBCAM = uvc.Connected(Path("/dev/video4"), Path("/dev/v4l/by-id/usb-C920"), "HD Pro Webcam C920")
SENSOR = uvc.Connected(Path("/dev/video0"), None, "Intel(R) RealSense(TM) Depth Ca")


def test_every_camera_is_listed_by_the_text_that_names_it(plugged_in, capsys):
    plugged_in([realsense.Connected("Intel RealSense D435", "839112060123", "3.2")], [SENSOR, WEBCAM])
    assert cli.main(["cameras"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["realsense:839112060123", "uvc:/dev/v4l/by-id/usb-C920"]
    assert "D435, USB 3.2" in lines[0] and "C920 (/dev/video4)" in lines[1]


def test_without_librealsense_its_cameras_are_listed_as_webcams_and_the_reason_is_said(plugged_in, capsys):
    plugged_in(CameraError("pyrealsense2 is not installed: run `pip`"), [SENSOR])
    assert cli.main(["cameras"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("uvc:/dev/video0") and "note: RealSense cameras are not looked for" in shown


def test_no_camera_is_no_error(plugged_in, capsys):
    plugged_in([], [])
    assert cli.main(["cameras"]) == 0
    assert "no camera is plugged in" in capsys.readouterr().out


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), (10, 60 + i, 200), np.uint8))
    return folder


def test_a_look_saves_the_last_picture_and_says_its_size(pictures, tmp_path, capsys):
    out = tmp_path / "out" / "frame.png"
    assert cli.main(["cameras", "--show", f"file:{pictures}", "--save", str(out)]) == 0
    assert (cv2.imread(str(out)) == (10, 63, 200)).all()
    shown = capsys.readouterr().out
    assert "64x48" in shown and "ended" in shown


def test_a_dark_camera_is_exit_code_1_and_its_picture_is_saved_all_the_same(tmp_path, capsys):
    for i in range(30):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.full((48, 64, 3), i % 9, np.uint8))
    arguments = ["cameras", "--show", f"file:{tmp_path}", "--seconds", "0.3"]
    assert cli.main([*arguments, "--save", str(tmp_path / "frame.png")]) == 1
    assert "dark: the picture is dark" in capsys.readouterr().out
    assert (tmp_path / "frame.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--show", "webcam"], "camera webcam is not understood"),
        (["--show", "uvc:/dev/video77"], "/dev/video77 is not there"),
        (["--save", "frame.png"], "add --show CAMERA"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments, words, capsys):
    assert cli.main(["cameras", *arguments]) == 2
    shown = capsys.readouterr().err
    assert words in shown and shown.count("\n") == 1


def test_a_file_that_is_no_picture_is_refused(pictures, tmp_path, capsys):
    save = ["--save", str(tmp_path / "frame.txt")]
    assert cli.main(["cameras", "--show", f"file:{pictures}", *save]) == 2
    assert "frame.txt: cannot be written" in capsys.readouterr().err
