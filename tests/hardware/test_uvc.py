"""UVC cameras over OpenCV's own V4L2 code. Only the kernel is a stand-in: fake_v4l2.c answers its ioctls."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.camera.uvc import connected

HERE = Path(__file__).parent
CASES = (
    "contract",
    "colours_and_stamps",
    "driver_stamps",
    "stamps_of_another_clock",
    "repeated_stamp",
    "repeated_stamp_while_the_wall_clock_is_slewed",
    "locks",
    "not_to_be_opened",
    "wrong_size",
    "unplug_and_plug_in_again",
    "silent",
)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no gcc to make the stand-in for the kernel with")
    library = tmp_path_factory.mktemp("kernel") / "fake_v4l2.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "fake_v4l2.c", "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


@pytest.mark.parametrize("case", CASES)
def test_a_uvc_camera(case: str, kernel: Path, tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    environment = {
        **os.environ,
        "LD_PRELOAD": str(kernel),
        "FAKE_V4L2_DEVICE": str(device),
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(HERE / "uvc_cases.py"), case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "fine" in done.stdout, done.stdout + done.stderr


def device(sys_class: Path, number: int, name: str, index: int) -> None:
    folder = sys_class / f"video{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "index").write_text(f"{index}\n")


def test_devices_are_listed_in_order_with_their_names_and_lasting_paths(tmp_path: Path) -> None:
    sys_class, dev = tmp_path / "sys", tmp_path / "dev"
    device(sys_class, 10, "Integrated Camera", 0)
    device(sys_class, 2, "HD Pro Webcam C920", 0)
    device(sys_class, 3, "HD Pro Webcam C920", 1)  # its metadata
    by_id = dev / "v4l" / "by-id" / "usb-046d_HD_Pro_Webcam_C920-video-index0"
    by_id.parent.mkdir(parents=True)
    (dev / "video2").touch()
    by_id.symlink_to("../../video2")
    first, second = connected(sys_class, dev)
    assert (first.device, first.by_id, first.name) == (dev / "video2", by_id, "HD Pro Webcam C920")
    assert (second.device, second.by_id, second.name) == (dev / "video10", None, "Integrated Camera")


def test_where_there_is_no_camera_none_is_listed(tmp_path: Path) -> None:
    assert connected(tmp_path, tmp_path) == []
