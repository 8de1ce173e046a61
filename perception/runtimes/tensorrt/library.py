"""Which TensorRT this machine has: that of JetPack and servers, or TensorRT-RTX. Their API is the same."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from perception.errors import RuntimeUnavailable
from perception.runtimes.cuda import Device, find_device

MODULES = ("tensorrt", "tensorrt_rtx")
# The first with tensors by name and execute_async_v3.
OLDEST = (8, 5)


@dataclass(frozen=True)
class Library:
    """The module, what it calls itself ("tensorrt 10.3.0") and the device its engines are for."""

    module: ModuleType
    version: str
    device: Device


def find_library() -> Library:
    """Raises RuntimeUnavailable, saying what is missing and how to get it.

    The device comes first: without one, deserialising gives None, and the lean runtime crashes.
    """
    found = [name for name in MODULES if importlib.util.find_spec(name) is not None]
    if not found:
        raise RuntimeUnavailable(
            "TensorRT is not installed: it comes with JetPack (python3-libnvinfer), for desktops from NVIDIA"
        )
    device = find_device()
    problems = []
    for name in found:
        try:
            module = importlib.import_module(name)
            version = str(module.__version__)
        except (ImportError, AttributeError, OSError) as error:
            # PyPI's `tensorrt` is a stub where it could not fetch its libraries.
            problems.append(f"{name} is installed but cannot be loaded ({' '.join(str(error).split())})")
            continue
        if name == "tensorrt" and tuple(map(int, version.split(".")[:2])) < OLDEST:
            problems.append(
                f"TensorRT {version} runs engines in another way (no execute_async_v3): "
                f"install TensorRT {'.'.join(map(str, OLDEST))} (JetPack 5.1) or newer"
            )
            continue
        return Library(module, f"{name} {version}", device)
    raise RuntimeUnavailable("; ".join(problems))
