"""Which runtime a bundle runs on: who passes, who is refused, what is told and what is remembered."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli
from perception.errors import RuntimeUnavailable
from perception.runtimes import registry
from perception.runtimes.contract import Session, Variant
from perception.runtimes.onnx import OnnxRuntime, OnnxSession
from perception.runtimes.registry import REFERENCE
from planner import runtimes
from planner.bundle import Bundle, load_bundle
from planner.errors import RuntimeRefused
from planner.held_out import HeldOut, sample_held_out
from planner.runtimes import decision_ms, load_bundle_on, on_runtime


class Rounded(OnnxSession):
    """ONNX Runtime with its outputs off by `error`: what a low precision does to them."""

    error = 0.0

    def run(self, inputs: Mapping[str, Any]) -> Sequence[Any]:
        rng = np.random.default_rng(0)
        return [
            out + np.float32(self.error) * rng.standard_normal(out.shape, np.float32)
            for out in super().run(inputs)
        ]


class Library:
    """A runtime of which the test says what it offers, how exact that is, and what is missing."""

    name = "openvino"

    def __init__(self, errors: Mapping[str, float], missing: str = "", version: str = "1") -> None:
        self.errors, self.missing, self.version = errors, missing, version
        self.opened, self.broken = 0, ""

    def variants(self) -> tuple[Variant, ...]:
        if self.missing:
            raise RuntimeUnavailable(self.missing)
        return tuple(Variant(self.name, precision, self.version) for precision in self.errors)

    def open(self, path: Path, sha256: str | None, precision: str) -> Session:
        self.opened += 1
        if self.broken:
            raise RuntimeError(self.broken)
        session = Rounded(path, sha256)
        session.error = self.errors[precision]
        return session


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def only(*libraries: Library) -> None:
        monkeypatch.setattr(registry, "RUNTIMES", (OnnxRuntime(), *libraries))

    return only


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds of a decision by variant, instead of the clock."""
    taken: dict[str, float] = {REFERENCE.name: 10.0}
    monkeypatch.setattr(
        runtimes, "decision_ms", lambda bundles: [taken[bundle.variant.name] for bundle in bundles]
    )
    return taken


@pytest.fixture(scope="module")
def frames(tiny_dataset: Path) -> HeldOut:
    from perception.dataset import load_dataset

    return sample_held_out(load_dataset(tiny_dataset)[1], 2, 0.02)


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


class Rendering:
    """The simulator, counted."""

    def __init__(self, frames: HeldOut) -> None:
        self.frames, self.times = frames, 0

    def __call__(self, bundle: Bundle) -> HeldOut:
        self.times += 1
        return self.frames


def test_the_default_needs_no_check_and_no_cache(bundle: Bundle, cache: Path) -> None:
    assert on_runtime(bundle, "onnxruntime").variant == REFERENCE == bundle.variant
    assert not cache.exists()


def test_what_was_chosen_for_a_bundle_of_v_jepa_2_can_be_told_to_the_nodes_by_its_name(
    vjepa2_bundle: Path,
) -> None:
    bundle = load_bundle(vjepa2_bundle)
    chosen = on_runtime(bundle, "auto", tell=lambda line: None).variant
    assert on_runtime(bundle, chosen.name).variant == chosen == REFERENCE


def test_a_runtime_asked_for_by_name_is_used_when_it_is_exact_enough(
    bundle: Bundle, frames: HeldOut, install: Any
) -> None:
    library = Library({"bf16": 1e-5})
    install(library)
    on = on_runtime(bundle, "openvino", render=Rendering(frames))
    assert on.variant == Variant("openvino", "bf16", "1")
    library.opened = 0
    on.encoder(), on.world_model()
    assert library.opened == 4


def test_the_first_precision_that_is_exact_enough_is_taken(
    bundle: Bundle, frames: HeldOut, install: Any
) -> None:
    install(Library({"int8": 1.0, "fp32": 0.0}))
    assert on_runtime(bundle, "openvino", render=Rendering(frames)).variant.precision == "fp32"


def test_one_that_is_not_exact_enough_is_refused_unless_forced(
    bundle: Bundle, frames: HeldOut, install: Any
) -> None:
    install(Library({"int8": 1.0}))
    with pytest.raises(RuntimeRefused, match="not exact enough for bundle panda-push: openvino:int8: latent"):
        on_runtime(bundle, "openvino:int8", render=Rendering(frames))
    told: list[str] = []
    on = on_runtime(bundle, "openvino:int8", True, Rendering(frames), told.append)
    assert on.variant.name == "openvino:int8"
    (line,) = told
    assert "by force" in line and "latent cosine" in line


def test_one_that_is_not_here_is_refused_with_how_to_get_it(bundle: Bundle, install: Any) -> None:
    install(Library({}, missing="OpenVINO is not installed: pip install 'jepa-arm[openvino]'"))
    for force in (False, True):
        with pytest.raises(RuntimeRefused, match=r"pip install 'jepa-arm\[openvino\]'.*leave --runtime"):
            on_runtime(bundle, "openvino", force)


def test_a_precision_that_is_not_here_is_refused_with_those_there_are(bundle: Bundle, install: Any) -> None:
    install(Library({"fp32": 0.0}))
    with pytest.raises(RuntimeRefused, match="openvino:bf16: not on this machine; there is openvino:fp32"):
        on_runtime(bundle, "openvino:bf16")


def test_without_frames_and_simulator_a_named_runtime_is_refused_and_auto_stays(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float]
) -> None:
    install(Library({"bf16": 0.0}))
    timings["openvino:bf16"] = 1.0
    with pytest.raises(RuntimeRefused, match="carries no held-out frames, and no simulator here"):
        on_runtime(bundle, "openvino")
    told: list[str] = []
    assert on_runtime(bundle, "auto", tell=told.append).variant == REFERENCE
    assert len(told) == 2 and "carries no held-out frames" in told[1]
    # That is not held against it once there are frames.
    assert on_runtime(bundle, "auto", render=Rendering(frames)).variant.name == "openvino:bf16"


def test_auto_takes_the_fastest_that_is_exact_enough_and_says_why_not_the_others(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float]
) -> None:
    install(Library({"int8": 1.0, "bf16": 0.0, "fp32": 0.0}))
    timings |= {"openvino:int8": 1.0, "openvino:bf16": 4.0, "openvino:fp32": 9.0}
    told: list[str] = []
    assert on_runtime(bundle, "auto", False, Rendering(frames), told.append).variant.name == "openvino:bf16"
    before, line = told
    assert before.startswith("which of 4 runtimes is the fastest here")
    assert "runtime openvino:bf16: 2.5 times as fast as onnxruntime:fp32 here" in line
    assert "openvino:int8: latent cosine" in line


@pytest.mark.parametrize("ms", [9.5, 30.0])
def test_auto_stays_with_onnx_runtime_where_nothing_is_clearly_faster(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float], ms: float
) -> None:
    install(Library({"fp32": 0.0}))
    timings["openvino:fp32"] = ms
    told: list[str] = []
    assert on_runtime(bundle, "auto", False, Rendering(frames), told.append).variant == REFERENCE
    assert told[1:] == ["runtime onnxruntime:fp32: nothing that is exact enough is faster here"]


def test_auto_falls_back_in_one_line_where_a_library_is_missing(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float]
) -> None:
    install(Library({}, missing="no NVIDIA GPU"))
    told: list[str] = []
    assert on_runtime(bundle, "auto", False, Rendering(frames), told.append).variant == REFERENCE
    assert len(told) == 1 and "openvino: no NVIDIA GPU" in told[0]


def test_what_was_found_out_is_remembered_until_the_library_changes(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float]
) -> None:
    timings["openvino:bf16"] = 2.0
    rendering, told = Rendering(frames), list[str]()
    for _ in range(2):
        install(Library({"bf16": 0.0}))
        assert on_runtime(bundle, "auto", False, rendering, told.append).variant.name == "openvino:bf16"
    assert rendering.times == 1
    assert told[2:] == ["runtime openvino:bf16: 5.0 times as fast as onnxruntime:fp32 here (remembered)"]
    assert on_runtime(bundle, "openvino", render=None).variant.name == "openvino:bf16"
    install(Library({"bf16": 1.0}, version="2"))
    with pytest.raises(RuntimeRefused, match="latent cosine"):
        on_runtime(bundle, "openvino", render=rendering)
    assert rendering.times == 2


@pytest.mark.parametrize("remembered", [False, True])
def test_auto_falls_back_where_what_is_fastest_does_not_run_now(
    bundle: Bundle, frames: HeldOut, install: Any, timings: dict[str, float], remembered: bool
) -> None:
    timings["openvino:bf16"] = 2.0
    library, told = Library({"bf16": 0.0}), list[str]()
    install(library)
    if remembered:
        assert on_runtime(bundle, "auto", False, Rendering(frames)).variant.name == "openvino:bf16"
    library.broken = "out of\nmemory"
    assert on_runtime(bundle, "auto", False, Rendering(frames), told.append).variant == REFERENCE
    assert len(told) == 2 and "openvino:bf16:" in told[1] and "out of memory" in told[1]
    library.broken = ""
    # What was wrong then is not held against it.
    assert on_runtime(bundle, "auto", False, Rendering(frames)).variant.name == "openvino:bf16"


def test_a_verdict_is_of_one_bundle_only(
    bundle: Bundle, frames: HeldOut, install: Any, tiny_bundle: Path, tmp_path: Path
) -> None:
    install(Library({"bf16": 0.0}))
    rendering = Rendering(frames)
    on_runtime(bundle, "openvino", render=rendering)
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle, other)
    (other / "weights.safetensors").write_bytes(b"others")
    on_runtime(load_bundle(other), "openvino", render=rendering)
    assert rendering.times == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"cosine": 1.0}'])
def test_a_damaged_memory_is_found_out_anew(
    bundle: Bundle, frames: HeldOut, install: Any, cache: Path, content: bytes
) -> None:
    install(Library({"bf16": 0.0}))
    rendering = Rendering(frames)
    on_runtime(bundle, "openvino", render=rendering)
    for file in cache.rglob("*.json"):
        file.write_bytes(content)
    assert on_runtime(bundle, "openvino", render=rendering).variant.name == "openvino:bf16"
    assert rendering.times == 2


def test_a_home_that_cannot_be_written_to_only_costs_time(
    bundle: Bundle, frames: HeldOut, install: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    install(Library({"bf16": 0.0}))
    assert on_runtime(bundle, "openvino", render=Rendering(frames)).variant.name == "openvino:bf16"


def test_a_node_checks_by_the_frames_in_the_bundle(tiny_bundle: Path, install: Any) -> None:
    install(Library({"bf16": 0.0}))
    assert load_bundle_on(tiny_bundle, "onnxruntime", False, print).variant == REFERENCE
    with pytest.raises(RuntimeRefused, match="carries no held-out frames"):
        load_bundle_on(tiny_bundle, "openvino", False, print)
    assert load_bundle_on(tiny_bundle, "openvino", True, print).variant.name == "openvino:bf16"


def test_timing_gives_a_figure_for_each(bundle: Bundle) -> None:
    timings = decision_ms([bundle, bundle])
    assert len(timings) == 2 and all(0 < ms < 10_000 for ms in timings)


def test_the_command_line_refuses_a_runtime_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("caffe", "auto:fp32"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["eval", "--task", "push", "--runtime", name])
        assert ended.value.code == 2
        assert "there are auto, onnxruntime, openvino, torch, tensorrt" in capsys.readouterr().err
