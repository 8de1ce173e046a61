"""--runtime and --force-runtime, for every command that runs a bundle. Light, as --help is to be quick."""

from __future__ import annotations

import argparse

# What measures has the same runtime everywhere; what moves an arm has the fastest that is exact enough.
MEASURING, MOVING = "onnxruntime", "auto"
REQUESTS = (MOVING, MEASURING, "openvino", "torch", "tensorrt")


def add_runtime_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """`args.runtime` is None if the user says nothing; then `args.usual_runtime` is meant, `default`."""
    parser.set_defaults(usual_runtime=default)
    parser.add_argument(
        "--runtime",
        type=request,
        metavar="NAME",
        help=f"what runs the bundle's graphs: {', '.join(REQUESTS)}, also with a precision (openvino:bf16); "
        f"auto is the fastest that is exact enough on this machine (default: {default})",
    )
    parser.add_argument(
        "--force-runtime",
        action="store_true",
        help="run it even if it is not exact enough, or cannot be checked",
    )


def request(text: str) -> str:
    """An argparse type: a runtime by name, which may be followed by a colon and a precision."""
    name, _, precision = text.partition(":")
    if name not in REQUESTS or (name == "auto" and precision):
        raise argparse.ArgumentTypeError(f"no {text!r}; there are {', '.join(REQUESTS)}")
    return text
