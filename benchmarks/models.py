"""Models side by side on one device: our bundle from frame to command, and video encoders of published sizes.

Their weights are random: speed does not depend on values. A step is counted from arrays in the computer's
memory to arrays in the computer's memory, copies to and from a GPU included, as a node sees it; but one frame
is on the device already ("frame there").
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import hardware_cases
from benchmarks.errors import BenchmarkError
from benchmarks.plans import count_work, scenes
from benchmarks.roofline import DTYPES, Roofline, wait_for
from benchmarks.timing import Case
from hardware.robot import load_robot
from perception.errors import ModelError
from perception.preprocessing import prepare as preprocess
from perception.runtimes.contract import FrameRuntime, Variant
from perception.runtimes.modules import open_module
from perception.runtimes.registry import offers, open_session, runtime_named
from perception.vjepa2.checkpoint import empty_encoder
from perception.vjepa2.config import IMAGE_MEAN, IMAGE_STD, MODELS, EncoderConfig, Layers
from perception.vjepa2.encoder import VideoEncoder
from perception.vjepa2.export import OPSET
from planner.bundle import Bundle
from planner.contract import Planner
from planner.errors import PlannerError
from planner.planners import Mode2Planner
from planner.registry import make_planner

BUNDLE = "bundle"
# ViT-Ti/16 of Touvron et al. 2021 (arXiv:2012.12877), in V-JEPA 2's make: rotary positions, no class token.
VIT_TINY = EncoderConfig(Layers(depth=12, width=192, heads=3, hidden=768), 224)
PUBLISHED = ("vit-tiny", "vitl", "vith", "vitg")
ENCODERS = {name: model.encoder for name, model in MODELS.items() if model.encoder.release == "2.0"}
ENCODERS |= {"vit-tiny": VIT_TINY}
FRAMES = (2, 8, 16)
EAGER = "torch eager"
RUNTIMES = {"cpu": ("onnxruntime", "openvino"), "cuda": ("torch", "tensorrt")}
PRECISION = {"cpu": "fp32", "cuda": "fp16"}
# Export takes minutes and gigabytes beyond; on a CPU such models are hardly run.
MOST_WEIGHTS_EXPORTED_FOR_A_CPU = 100_000_000


@dataclass(frozen=True)
class Row:
    """A step of a model on a runtime: what is measured, the least work in it, and why it was left out.

    `moved` counts weights, inputs and outputs once, in bytes: what has to move however good the caches are.
    """

    model: str
    step: str
    batch: int
    runtime: str
    precision: str
    flops: int = 0
    moved: int = 0
    run: Callable[[], object] | None = None
    left_out: str = ""

    @property
    def name(self) -> str:
        return f"{self.model} {self.step} {self.batch} {self.runtime}"

    def case(self) -> Case:
        assert self.run is not None
        return Case(self.name, self.model, self.run, flops=self.flops)


@dataclass(frozen=True)
class Limits:
    """How long one call may take, and what tells beforehand how long it will at least."""

    seconds: float
    roofline: Roofline

    def tried(self, row: Row) -> Row:
        """`row`, without its run if a single call takes longer than `seconds`, by its work or by trying."""
        assert row.run is not None
        least = self.roofline.least_s(row.flops, row.moved, row.precision)
        if least is not None and least > self.seconds:
            return replace(row, run=None, left_out=f"not run: at least {least:.3g} s a call by its work")
        row.run()  # memory is laid out, graphs are captured
        started = time.perf_counter()
        row.run()
        took = time.perf_counter() - started
        if took > self.seconds:
            return replace(row, run=None, left_out=f"one call took {took:.3g} s, no more were made")
        return row


def chosen_models(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """ "bundle,vit-tiny,vitl:2" to names, each with the numbers of frames in its clips.

    Raises BenchmarkError for a name or a number that there is not.
    """
    chosen = []
    for word in text.split(","):
        name, colon, frames = word.partition(":")
        known = {BUNDLE: (), "vit-tiny": FRAMES[:1]}.get(name, FRAMES if name in ENCODERS else None)
        if known is None or (colon and frames not in map(str, known)):
            names = ", ".join((BUNDLE, *PUBLISHED))
            raise BenchmarkError(
                f"--models: no {word!r}; there are {names}, those of V-JEPA 2 also as vitl:8"
            )
        chosen.append((name, (int(frames),) if colon else known))
    return chosen


def check_device(device: str) -> None:
    """Raises BenchmarkError where there is no such device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: torch finds no GPU here; --device cpu measures the processor")


def variants_for(device: str) -> list[Variant]:
    """What runs graphs on `device` beside torch eager."""
    return [variant for offer in offers() if offer.runtime in RUNTIMES[device] for variant in offer.variants]


# --- our bundle ---


def bundle_rows(bundle: Bundle, device: str, batch: int, limits: Limits) -> Iterator[Row]:
    """Preprocessing, encoder, Mode-2 plan and all of it from frame to joint command."""
    rng, near = np.random.default_rng(0), scenes(bundle)[1]
    size, camera = bundle.info.image_size, bundle.camera
    frame = rng.integers(0, 256, (camera.height, camera.width, 3), dtype=np.uint8)
    servo = next(case for case in hardware_cases(bundle, load_robot(bundle.robot)) if case.name == "servo")
    (torch_variant,) = next(offer.variants for offer in offers() if offer.runtime == "torch")
    ways = [(EAGER, torch_variant), *((variant.name, variant) for variant in variants_for(device))]
    plan_flops = count_work(bundle, begun(Mode2Planner(bundle), near.goal), near)[1]
    weights = {graph.file: weights_of(bundle, graph.file) for graph in bundle.info.graphs.all}
    encoder_flops = flops_of(weights["encoder.onnx"][0], (1, size, size, 3), torch.uint8)
    encoder_bytes = weights["encoder.onnx"][1]
    plan_bytes = sum(count for file, (_, count) in weights.items() if file != "encoder.onnx")
    yield limits.tried(
        Row(bundle.name, "preprocess", 1, "OpenCV", "uint8", run=partial(preprocess, frame, size))
    )
    for name, variant in ways:
        try:
            on = bundle.on(variant)
            # On CUDA, torch's own planner is captured: there is nothing eager about it.
            made = Mode2Planner(on) if name == EAGER else make_planner("mode2", on)
            encoder, planner = on.encoder(), begun(made, near.goal)
        except (ModelError, PlannerError) as error:
            yield Row(bundle.name, "encoder", 1, name, variant.precision, left_out=f"not run: {error}")
            continue
        around = eagerly if name == EAGER else as_it_is
        precision = variant.precision
        for count in dict.fromkeys((1, batch)):
            images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
            moved = scaled(encoder_bytes, precision) + images.nbytes + count * bundle.info.latent_dim * 4
            encode = around(partial(encoder.encode, images))
            flops = count * encoder_flops
            yield limits.tried(Row(bundle.name, "encoder", count, name, precision, flops, moved, encode))
        if isinstance(runtime_named(variant.runtime), FrameRuntime):
            moved = scaled(encoder_bytes, precision) + frame.nbytes + bundle.info.latent_dim * 4
            encode = around(partial(on.frame_encoder().encode, torch.from_numpy(frame).to(device)))
            yield limits.tried(
                Row(bundle.name, "frame there to latent", 1, name, precision, encoder_flops, moved, encode)
            )
        plan = around(partial(planner.plan, near.observation))
        moved = scaled(plan_bytes, precision)
        yield limits.tried(Row(bundle.name, "plan mode2", 1, name, precision, plan_flops, moved, plan))

        def command(encode: Any = encoder.encode, plan: Callable[[], object] = plan) -> None:
            encode(preprocess(frame, size)[None])
            plan()
            servo.run()

        flops, moved = encoder_flops + plan_flops, moved + scaled(encoder_bytes, precision)
        whole = Row(bundle.name, "frame to command", 1, name, precision, flops, moved, around(command))
        yield limits.tried(whole)


def begun(planner: Planner, goal: Any) -> Any:
    """`planner`, pursuing `goal`."""
    planner.begin(goal)
    return planner


def weights_of(bundle: Bundle, file: str) -> tuple[nn.Module, int]:
    """The torch module of a graph, and the bytes of its weights in float32."""
    module = open_module(bundle.path / file)
    return module, parameter_bytes(module)


# --- video encoders ---


class ClipEncoder(nn.Module):
    """Clips uint8 (N, T, S, S, 3) to features (N, tokens, width), computed in `dtype`."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: VideoEncoder, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.encoder, self.dtype = encoder.to(dtype), dtype
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN, dtype=dtype) * 255)
        self.register_buffer("std", torch.tensor(IMAGE_STD, dtype=dtype) * 255)

    def forward(self, clip: Tensor) -> Tensor:
        pixels = (clip.to(self.dtype) - self.mean) / self.std
        return self.encoder(pixels.permute(0, 4, 1, 2, 3)).float()


def encoder_rows(
    name: str, frames: int, device: str, batch: int, limits: Limits, folder: Path
) -> Iterator[Row]:
    """Torch eager first, then each runtime of the device; graphs are exported into `folder`."""
    config, precision = ENCODERS[name], PRECISION[device]
    step = f"{frames} frames"
    empty = ClipEncoder(empty_encoder(config))
    shape = (1, frames, config.image_size, config.image_size, 3)
    flops = flops_of(empty, shape, torch.uint8)
    tokens = frames // config.tubelet_size * config.tokens_per_frame
    values = parameter_bytes(empty)
    counts = tuple(dict.fromkeys((1, batch)))

    def row(count: int, runtime: str, precision: str, run: Callable[[], object] | None) -> Row:
        moved = scaled(values, precision) + count * (int(np.prod(shape)) + tokens * config.layers.width * 4)
        return Row(name, step, count, runtime, precision, count * flops, moved, run)

    def clips(count: int) -> Any:
        return np.random.default_rng(0).integers(0, 256, (count, *shape[1:]), dtype=np.uint8)

    least = limits.roofline.least_s(flops, values, precision)
    if least is not None and least > limits.seconds:
        # Not even made: the largest has a billion weights.
        note = f"not run: at least {least:.3g} s a call by its work"
        yield replace(row(1, EAGER, precision, None), left_out=note)
        return
    module = random_encoder(config, device, DTYPES[precision])
    for count in counts:
        run = partial(run_module, module, clips(count), device)
        yield limits.tried(row(count, EAGER, precision, run))
    if device == "cuda":
        compiled = torch.compile(module, mode="reduce-overhead", dynamic=False)
        for count in counts:
            run = partial(run_module, compiled, clips(count), device)
            yield limits.tried(row(count, "torch compiled", precision, run))
    variants = [variant for variant in variants_for(device) if variant.runtime != "torch"]
    if device == "cpu" and values / 4 > MOST_WEIGHTS_EXPORTED_FOR_A_CPU:
        for variant in variants:
            note = f"not exported: {values / 4e6:.0f} million weights"
            yield replace(row(1, variant.name, variant.precision, None), left_out=note)
        return
    graph = export_clips(random_encoder(config, "cpu", torch.float32), shape, folder / f"{name}-{frames}")
    for variant in variants:
        try:
            session = open_session(variant, graph)
            for count in counts:
                run = partial(session.run, {"clip": clips(count)})
                yield limits.tried(row(count, variant.name, variant.precision, run))
        except ModelError as error:
            yield replace(row(1, variant.name, variant.precision, None), left_out=f"not run: {error}")


def random_encoder(config: EncoderConfig, device: str, dtype: torch.dtype) -> ClipEncoder:
    generator = torch.Generator(device).manual_seed(0)
    with torch.device(device):
        encoder = VideoEncoder(config)
    for weight in encoder.parameters():
        weight.data.normal_(std=0.02, generator=generator)
    return ClipEncoder(encoder, dtype).to(device).eval().requires_grad_(False)


@torch.inference_mode()
def run_module(module: Callable[[Tensor], Tensor], clips: Any, device: str) -> Any:
    features = module(torch.from_numpy(clips).to(device)).cpu().numpy()
    wait_for(device)
    return features


def export_clips(module: ClipEncoder, shape: Sequence[int], folder: Path) -> Path:
    """An ONNX graph with a dynamic batch and its weights, in a folder of their own."""
    import logging
    import warnings

    folder.mkdir(parents=True)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    example = torch.zeros((2, *shape[1:]), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["clip"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(folder / "encoder.onnx", external_data=True)
    return folder / "encoder.onnx"


# --- work ---


def flops_of(module: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> int:
    """Operations of one call by torch's own counter: two for a multiply-add of matrices and convolutions."""
    on_meta = module.to("meta")
    with FlopCounterMode(display=False) as counter:
        on_meta(torch.zeros(tuple(shape), dtype=dtype, device="meta"))
    return int(counter.get_total_flops())


def parameter_bytes(module: nn.Module) -> int:
    return 4 * sum(weight.numel() for weight in module.parameters())


def scaled(bytes_in_fp32: int, precision: str) -> int:
    """Bytes of as many numbers in `precision`."""
    return bytes_in_fp32 * {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}[precision] // 4


def eagerly(call: Callable[[], object]) -> Callable[[], object]:
    """`call` with everything that torch has compiled run uncompiled."""

    def run() -> object:
        with torch.compiler.set_stance("force_eager"):
            return call()

    return run


def as_it_is(call: Callable[[], object]) -> Callable[[], object]:
    return call
