"""`jepa-arm train` as tests run it, alone or under torchrun: cut where CUT_BEFORE says, and in double
precision, where rounding hides nothing.
"""

import contextlib
import os
import sys
from typing import Any

import torch

import cli
from perception.jepa.trainer import Trainer

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
torch.autocast = lambda *_, **__: contextlib.nullcontext()
descend, numbers = Trainer._descend, iter(range(1, 1000))


def descend_until_cut(*args: Any) -> None:
    if next(numbers) == int(os.environ.get("CUT_BEFORE", "0")):
        raise KeyboardInterrupt
    descend(*args)


Trainer._descend = descend_until_cut  # type: ignore[method-assign]
sys.exit(cli.main(sys.argv[1:]))
