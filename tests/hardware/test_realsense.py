"""RealSense through librealsense itself: its software device in place of the camera, its own recordings."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hardware.camera import realsense
from hardware.camera.contract import NoNewFrame, RepeatedFrame, StreamEnded, check_camera
from hardware.camera.host_clock import HostClock
from hardware.camera.realsense import RealSenseCamera, RealSenseRecording
from hardware.errors import CameraError, CameraUnplugged

rs = pytest.importorskip(
    "pyrealsense2", reason="pyrealsense2, or Debian's libusb-1.0-0, is missing", exc_type=ImportError
)

from .software_realsense import FOCAL, PRINCIPAL_POINT, SERIAL, SoftwareRealSense  # noqa: E402

PATIENCE_S = 10.0


@pytest.fixture
def device() -> SoftwareRealSense:
    return SoftwareRealSense()


def picture(number: int) -> np.ndarray:
    image = np.full((96, 128, 3), 100, np.uint8)
    image[:, :, 0] = number
    image[10:20, 30:50] = (200, 10, 60)
    return image


def opened(device: SoftwareRealSense, **arguments) -> RealSenseCamera:
    camera = RealSenseCamera(SERIAL, size=device.size, find=device.find, **arguments)
    camera.open()
    return camera


def test_colour_comes_as_it_was_sent_and_depth_is_aligned_to_it():
    device = SoftwareRealSense(baseline_m=0.02)
    camera = opened(device, depth=True, frame_id="wrist")
    depth = np.full((96, 128), 2000, np.uint16)
    depth[40:56, 60:72] = 500
    device.send(picture(7), depth, stamp_ms=1_700_000_000_123.5)
    frame = camera.read(PATIENCE_S)
    camera.close()
    assert (frame.image == picture(7)).all(), "red and blue are swapped, or rows are"
    assert frame.depth_mm is not None and frame.depth_mm.dtype == np.uint16
    near = np.argwhere(frame.depth_mm == 500)
    shift = FOCAL * 0.02 / 0.5  # pixels that half a metre away seems moved by, seen from 2 cm beside
    np.testing.assert_allclose(near.mean(axis=0), [47.5, 65.5 + shift], atol=1.0)
    assert (frame.stamp_ns, frame.frame_id) == (1_700_000_000_123_500_000, "wrist")


def test_depth_is_in_millimetres_whatever_the_cameras_unit(device):
    device = SoftwareRealSense(units_m=0.0001)
    camera = opened(device, depth=True)
    device.send(picture(1), np.full((96, 128), 12_340, np.uint16))
    frame = camera.read(PATIENCE_S)
    camera.close()
    assert frame.depth_mm is not None and np.median(frame.depth_mm) == 1234


def test_without_depth_there_is_none(device):
    camera = opened(device)
    device.send(picture(1))
    assert camera.read(PATIENCE_S).depth_mm is None
    camera.close()


def test_the_intrinsics_are_the_devices_own(device):
    camera = opened(device)
    found = camera.intrinsics
    camera.close()
    assert found is not None
    assert (found.width, found.height, found.fx, found.fy) == (128, 96, FOCAL, FOCAL)
    assert (found.cx, found.cy) == PRINCIPAL_POINT
    np.testing.assert_allclose(found.distortion, [0.1, -0.05, 0.001, 0.002, 0.01], rtol=1e-6)


def test_a_lens_model_that_opencv_does_not_have_is_not_passed_off_as_one_it_has():
    device = SoftwareRealSense(model="ftheta")
    camera = opened(device)
    assert camera.intrinsics is None
    camera.close()


def test_a_frame_is_handed_out_once_and_an_old_stamp_is_a_repetition(device):
    camera = opened(device)
    device.send(picture(1), stamp_ms=2000.0)
    camera.read(PATIENCE_S)
    with pytest.raises(NoNewFrame):
        camera.read(0.01)
    for stamp_ms in (2000.0, 1000.0):
        device.send(picture(2), stamp_ms=stamp_ms)
        with pytest.raises(RepeatedFrame):
            camera.read(PATIENCE_S)
    device.send(picture(3), stamp_ms=2033.0)
    assert camera.read(PATIENCE_S).image[0, 0, 0] == 3
    camera.close()


def test_pulling_out_is_told_from_silence_and_plugging_in_again_goes_on(device):
    camera = opened(device)
    with pytest.raises(NoNewFrame):
        camera.read(0.01)
    device.pull_out()
    with pytest.raises(CameraUnplugged):
        camera.read(0.01)
    with pytest.raises(CameraUnplugged):
        camera.open()
    device.plug_in()
    camera.open()
    device.send(picture(9))
    assert camera.read(PATIENCE_S).image[0, 0, 0] == 9
    camera.close()
    camera.close()


def test_a_size_the_camera_does_not_have_is_answered_with_those_it_has(device):
    camera = RealSenseCamera(size=(640, 480), find=device.find)
    with pytest.raises(CameraError, match="640x480 colour at 30 Hz.*its colour: 128x96 at 30 Hz"):
        camera.open()


def test_exposure_and_white_balance_are_locked_in_the_cameras_own_units(device):
    colour = device.device.query_sensors()[1]
    for option, value in (
        ("enable_auto_exposure", 1.0),
        ("exposure", 5.0),
        ("enable_auto_white_balance", 1.0),
        ("white_balance", 3000.0),
    ):
        limits = rs.option_range()
        limits.min, limits.max, limits.step, limits.default = 0.0, 10_000.0, 1.0, value
        device._colour.add_option(getattr(rs.option, option), limits, True)
        device._colour.set_option(getattr(rs.option, option), value)
    camera = opened(device, exposure_ms=8.0, white_balance_k=4600.0)
    camera.close()
    assert colour.get_option(rs.option.enable_auto_exposure) == 0.0
    assert colour.get_option(rs.option.exposure) == 80.0  # of 100 µs
    assert colour.get_option(rs.option.enable_auto_white_balance) == 0.0
    assert colour.get_option(rs.option.white_balance) == 4600.0


def test_a_lock_that_the_camera_does_not_have_is_refused_by_name(device):
    with pytest.raises(CameraError, match="exposure_ms=8 cannot be set"):
        opened(device, exposure_ms=8.0)


def test_hardware_stamps_are_mapped_to_the_hosts_clock(device):
    camera = opened(device)
    before_ns = time.time_ns()
    stamps = []
    for i in range(5):
        device.send(picture(i), stamp_ms=5_000.0 + 33.0 * i, domain="hardware_clock")
        stamps.append(camera.read(PATIENCE_S).stamp_ns)
    camera.close()
    assert before_ns <= stamps[0] <= time.time_ns()
    assert stamps == sorted(set(stamps))


def test_transfer_jitter_does_not_reach_the_stamps():
    rng = np.random.default_rng(3)
    clock, offset_ns, quickest_ns = HostClock(), 1_700_000_000_000_000_000, 4_000_000
    errors = []
    for i in range(300):
        taken = i * 33_333_333
        arrival = taken + offset_ns + quickest_ns + int(rng.exponential(8e6))
        errors.append(clock.to_host(taken, arrival) - taken - offset_ns)
    assert max(errors[30:]) - quickest_ns < 1_000_000
    assert min(errors) >= quickest_ns


def test_a_device_that_was_reset_starts_a_new_mapping():
    clock = HostClock()
    clock.to_host(50_000_000_000, 100_000_000_000)
    assert clock.to_host(1_000_000, 100_100_000_000) == 100_100_000_000


def test_the_mapping_follows_clocks_that_drift_apart():
    clock, drift = HostClock(), 100e-6
    for i in range(3000):
        taken = i * 33_333_333
        arrival = int(taken * (1 + drift)) + 7_000_000
        error_ns = clock.to_host(taken, arrival) - arrival
        assert abs(error_ns) <= 10e9 * drift + 1000


@pytest.fixture
def recording(device: SoftwareRealSense, tmp_path: Path) -> Path:
    """Twelve frames at 30 Hz, as the camera was read."""
    path = tmp_path / "table.db3"
    recorders = [rs.recorder(str(path), device.device)]
    camera = RealSenseCamera(size=device.size, depth=True, find=lambda serial: recorders[0])
    camera.open()
    for i in range(12):
        device.send(picture(20 * i), stamp_ms=1_700_000_000_000.0 + i * 33.0)
        camera.read(PATIENCE_S)
        time.sleep(1 / 30)  # it is played back as fast as it was recorded
    camera.close()
    recorders.clear()  # the file is complete when nobody holds the recorder
    return path


def test_a_recording_plays_back_in_order_and_in_time_and_ends(recording):
    camera = RealSenseRecording(recording, depth=True)
    camera.open()
    assert camera.intrinsics is not None and camera.intrinsics.fx == FOCAL
    frames, opened_ns = [], time.time_ns()
    with pytest.raises(StreamEnded, match=r"table\.db3.*no more frames"):
        while True:
            try:
                frames.append(camera.read(0.3))
                assert frames[-1].stamp_ns <= time.time_ns()
            except StreamEnded:
                raise
            except NoNewFrame:
                assert time.time_ns() - opened_ns < PATIENCE_S * 1e9
    camera.close()
    numbers = [int(frame.image[0, 0, 0]) // 20 for frame in frames]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 11 and len(numbers) >= 6
    assert all(frame.depth_mm is not None for frame in frames)
    for first, second in zip(frames, frames[1:]):
        steps = (int(second.image[0, 0, 0]) - int(first.image[0, 0, 0])) // 20
        assert second.stamp_ns - first.stamp_ns == pytest.approx(steps * 33e6, abs=10e6)
    assert frames[0].stamp_ns >= opened_ns - 1e9


def test_what_is_no_recording_is_named(tmp_path):
    text = tmp_path / "notes.db3"
    text.write_text("no recording")
    for path, reason in ((tmp_path / "nowhere.db3", "no such file"), (text, "not a RealSense recording")):
        with pytest.raises(CameraError, match=reason) as caught:
            RealSenseRecording(path).open()
        assert str(path) in str(caught.value)


def test_a_live_software_device_keeps_the_promises_of_a_camera(device):
    class Fed(RealSenseCamera):
        """The device sends a frame for every read."""

        def read(self, timeout_s: float):
            device.send(picture(device.number))
            return super().read(timeout_s)

    check_camera(Fed(size=device.size, find=device.find))


def test_where_no_realsense_is_plugged_in_that_is_said():
    if realsense.connected():
        pytest.skip("a RealSense is plugged in here")
    with pytest.raises(CameraUnplugged, match="no RealSense is connected"):
        RealSenseCamera().open()


def test_a_missing_libusb_is_said_with_the_package_that_brings_it(monkeypatch):
    class NoLibUsb:
        def find_spec(self, name, path=None, target=None):
            if name == "pyrealsense2":
                raise ImportError(
                    "libusb-1.0.so.0: cannot open shared object file: No such file or directory"
                )

    monkeypatch.delitem(sys.modules, "pyrealsense2")
    monkeypatch.setattr(sys, "meta_path", [NoLibUsb(), *sys.meta_path])
    with pytest.raises(CameraError, match="apt-get install -y libusb-1.0-0"):
        realsense.library()
