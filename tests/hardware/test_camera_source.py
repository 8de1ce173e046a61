from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.camera.contract import Frame, Intrinsics
from hardware.camera.file import FileCamera
from hardware.camera.fit import Fit
from hardware.camera.source import camera_source
from hardware.camera.uvc import UvcCamera
from hardware.errors import CameraError


def source(text: str):
    return camera_source(text, 25.0, "wrist")


def test_a_live_camera_has_a_size_and_comes_back_and_a_recording_has_none_and_does_not():
    for text, size, live in (
        ("realsense", (640, 480), True),
        ("realsense:839112060123,depth=on,size=1280x720,fps=15", (1280, 720), True),
        ("uvc:/dev/v4l/by-id/usb-Cam,v2-video-index0,exposure_ms=8.5", (640, 480), True),
        ("realsense:recordings/table.db3,depth=on", None, False),
        ("file:recordings/table.mp4", None, False),
    ):
        found = source(text)
        assert (found.size, found.live) == (size, live), text


def test_the_text_reaches_the_camera(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.full((8, 8, 3), 99, np.uint8))
    camera = source(f"file:{tmp_path},fps=12").make()
    assert isinstance(camera, FileCamera)
    camera.open()
    assert camera.read(1.0).frame_id == "wrist"
    camera.close()
    webcam = source("uvc:3").make()
    assert isinstance(webcam, UvcCamera) and str(webcam.device) == "/dev/video3"


def test_a_camera_of_your_own_is_named_by_module_and_callable(tmp_path):
    found = source("hardware.camera.file:FileCamera:some:where")
    assert found.live and found.size is None
    with pytest.raises(CameraError, match="some:where: no such file"):
        found.make().open()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"camera \(none\) is not understood; say realsense"),
        ("webcam", "camera webcam is not understood"),
        ("uvc", "not understood"),
        ("file:", "not understood"),
        ("uvc:0,size=big", "size=big: write it as WIDTHxHEIGHT"),
        ("uvc:0,size=0x480", "size"),
        ("uvc:0,fps=-1", "fps=-1: Input should be greater than 0"),
        ("uvc:0,fps=nan", "fps=nan"),
        ("uvc:0,depth=on", "no option depth"),
        ("file:x,size=1x1", "no option size"),
        ("realsense,depth=yes", "depth=yes"),
        ("no.such.module:Camera", "names nothing that can be imported"),
        ("hardware.camera.file:Camera0", "names nothing that can be imported"),
    ],
)
def test_what_names_no_camera_is_one_line_that_quotes_it(text, words):
    with pytest.raises(CameraError, match=words) as caught:
        source(text)
    assert "\n" not in str(caught.value)


def test_a_fitted_picture_is_the_middle_of_the_cameras():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, 80:560] = 200  # the middle square
    depth = np.full((480, 640), 900, np.uint16)
    fitted = Fit((640, 480), (128, 128)).frame(Frame(image, 5, "camera", depth))
    assert fitted.image.shape == (128, 128, 3) and (fitted.image == 200).all()
    assert fitted.depth_mm is not None and fitted.depth_mm.shape == (128, 128)
    assert (fitted.stamp_ns, fitted.frame_id) == (5, "camera")


def test_a_picture_of_the_right_size_is_left_as_it_is():
    frame = Frame(np.zeros((96, 128, 3), np.uint8), 5, "camera")
    assert Fit((128, 96), (128, 96)).frame(frame) is frame


def test_a_camera_is_not_enlarged():
    with pytest.raises(CameraError, match="320x100 pictures, smaller than the robot file's 128x128"):
        Fit((320, 100), (128, 128))


@given(
    source=st.tuples(st.integers(128, 1280), st.integers(128, 1280)),
    target=st.tuples(st.integers(32, 128), st.integers(32, 128)),
    point=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
)
def test_the_fitted_intrinsics_put_a_point_where_the_fitted_picture_shows_it(source, target, point):
    fit = Fit(source, target)
    lens = Intrinsics(*source, fx=500.0, fy=510.0, cx=source[0] / 2 + 3, cy=source[1] / 2 - 2)
    fitted = fit.intrinsics(lens)
    left, top, width, height = fit.window
    u, v = lens.fx * point[0] + lens.cx, lens.fy * point[1] + lens.cy
    # OpenCV's own resize: pixel centres are at half numbers of the picture's extent.
    expected = ((u - left + 0.5) / width * target[0] - 0.5, (v - top + 0.5) / height * target[1] - 0.5)
    found = (fitted.fx * point[0] + fitted.cx, fitted.fy * point[1] + fitted.cy)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert 0 <= left and 0 <= top and left + width <= source[0] and top + height <= source[1]
    assert abs(width / height - target[0] / target[1]) < 0.05 * target[0] / target[1]


def test_the_fitted_intrinsics_match_what_the_resizing_does():
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(image, (400, 150), 20, (255, 255, 255), -1)
    fit = Fit((640, 480), (128, 128))
    rows, columns = np.nonzero(fit.frame(Frame(image, 5, "camera")).image[:, :, 0] > 127)
    lens = fit.intrinsics(Intrinsics(640, 480, 500.0, 500.0, 320.0, 240.0))
    expected = ((400 - 320) / 500 * lens.fx + lens.cx, (150 - 240) / 500 * lens.fy + lens.cy)
    np.testing.assert_allclose((columns.mean(), rows.mean()), expected, atol=0.15)
