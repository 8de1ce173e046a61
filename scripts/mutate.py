"""Mutation testing of hardware/safety: how many small bugs do its tests notice? `make mutate`.

    python scripts/mutate.py [--module gate] [--show]

Every operator, number, condition, statement and returned value is broken once, one at a time; a mutant is
killed when a test fails, or hangs. What imports slowly is imported once, and each mutant is a fork of that,
one on every core, so that it takes about as long as the tests that kill it. The tests that throw things at
random are left out: they would kill more, but later. Exit code 1 if less than 95 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib.abc
import importlib.util
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    "stop",
    "motion",
    "followed",
    "command",
    "status",
    "caution",
    "estop",
    "measured",
    "collision",
    "gate",
)
TESTS = ROOT / "tests/hardware/safety"
# Which tests know most of a module; the others follow.
FIRST = {
    "stop": ("test_stop.py",),
    "motion": ("test_limits.py", "test_following.py", "test_workspace.py"),
    "command": ("test_broken_commands.py", "test_rate_and_counters.py", "test_gripper.py"),
    "status": ("test_time.py", "test_caution.py", "test_silence.py"),
    "caution": ("test_caution.py",),
    "estop": ("test_estop.py",),
    "measured": ("test_measured_arm.py", "test_silence.py", "test_time.py"),
    "collision": ("test_collision.py",),
    "followed": ("test_following.py", "test_silence.py"),
    "gate": ("test_following.py", "test_silence.py", "test_stop_and_reset.py", "test_measured_arm.py"),
}
LEFT_OUT = (
    "barrage or breaks_a_joint_limit or never_leaves or silence_ends or nothing_but_a_reset or millisecond"
)
# A mutant hangs when its tests take so many times as long as without it.
PATIENCE = 5.0
LEAST_SHARE = 0.95

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
RENAMES = {"minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any", "min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    module: str
    line: int
    what: str
    tree: ast.Module


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of `hardware.safety.<module>`."""
    source = (ROOT / f"hardware/safety/{module}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    for index, node in enumerate(ast.walk(tree)):
        for change in range(len(list(_changes(copy.deepcopy(node))))):
            changed = copy.deepcopy(tree)
            target = next(other for i, other in enumerate(ast.walk(changed)) if i == index)
            what = next(text for i, text in enumerate(_changes(target)) if i == change)
            yield Mutant(module, getattr(node, "lineno", 0), what, ast.fix_missing_locations(changed))


def _changes(node: ast.AST) -> Iterator[str]:
    """Make each change to `node` in turn, before its text is given out. Only the first of them is clean."""
    before = copy.deepcopy(node.__dict__)
    for text, fields in _variants(node):
        node.__dict__.update(copy.deepcopy(before))
        node.__dict__.update(fields)
        yield text


def _variants(node: ast.AST) -> Iterator[tuple[str, dict[str, object]]]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in SWAPS:
            yield f"{ast.unparse(node)}: other comparison", {"ops": [SWAPS[type(op)]()]}
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield (
                    f"{ast.unparse(node)}: comparison {i}",
                    {"ops": [*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]]},
                )
        case ast.BinOp(op=op) if type(op) in SWAPS:
            yield f"{ast.unparse(node)}: other operator", {"op": SWAPS[type(op)]()}
        case ast.BoolOp(op=op):
            yield f"{ast.unparse(node)}: and/or", {"op": SWAPS[type(op)]()}
        case ast.AugAssign(op=op) if type(op) in SWAPS:
            yield f"{ast.unparse(node)}: other operator", {"op": SWAPS[type(op)]()}
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield (
                f"{ast.unparse(node)}: without sign",
                {
                    "op": ast.UAdd() if isinstance(node.op, ast.USub) else node.op,
                    "operand": operand if isinstance(node.op, ast.USub) else ast.UnaryOp(ast.Not(), operand),
                },
            )
        case ast.Constant(value=bool() as value):
            yield f"{value}: not", {"value": not value}
        case ast.Constant(value=int() | float() as value):
            yield f"{value}: one more", {"value": value + 1}
        case ast.Attribute(attr=name) if name in RENAMES:
            yield f"{ast.unparse(node)}: {RENAMES[name]}", {"attr": RENAMES[name]}
        case ast.Name(id="min" | "max" as name):
            yield f"{name}: {RENAMES[name]}", {"id": RENAMES[name]}
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield f"if {ast.unparse(test)}: turned round", {"test": ast.UnaryOp(ast.Not(), test)}
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield f"return {ast.unparse(value)}: nothing", {"value": ast.Constant(None)}
    body = getattr(node, "body", None)
    if isinstance(body, list) and not isinstance(node, ast.ClassDef | ast.Module):
        for i, statement in enumerate(body):
            documents = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            names = isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
            if isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr | ast.Raise) and not (
                documents or names
            ):
                gone = f"{ast.unparse(statement).splitlines()[0]}: left out"
                yield gone, {"body": [*body[:i], ast.Pass(), *body[i + 1 :]]}


class MutantLoader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = f"hardware.safety.{mutant.module}"
        self.tree = mutant.tree

    def find_spec(self, name: str, path: object, target: object = None):
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module) -> None:
        exec(compile(self.tree, f"<mutant of {self.name}>", "exec"), module.__dict__)


@dataclass(frozen=True)
class Verdict:
    mutant: Mutant
    killed: bool


def judged(broken: Iterable[Mutant], patience_s: float) -> Iterator[Verdict]:
    """Each mutant's verdict, as they come: one at a time on every core. One that hangs is killed, too."""
    running: dict[int, tuple[Mutant, float]] = {}
    waiting = iter(broken)
    cores = len(os.sched_getaffinity(0))
    while True:
        for mutant in itertools.islice(waiting, cores - len(running)):
            pid = os.fork()
            if pid == 0:
                os._exit(_run_tests(mutant))
            running[pid] = mutant, time.monotonic() + patience_s
        if not running:
            return
        for pid, (mutant, deadline_s) in list(running.items()):
            hangs = time.monotonic() > deadline_s
            if hangs:
                os.kill(pid, signal.SIGKILL)
            done, status = os.waitpid(pid, 0 if hangs else os.WNOHANG)
            if done:
                del running[pid]
                yield Verdict(mutant, hangs or os.waitstatus_to_exitcode(status) != 0)
        time.sleep(0.01)


def seconds_unbroken() -> float:
    """How long the tests take that every mutant has to face. Raises SystemExit if they fail without one."""
    began_s = time.monotonic()
    source = (ROOT / f"hardware/safety/{MODULES[0]}.py").read_text(encoding="utf-8")
    unbroken = Mutant(MODULES[0], 0, "nothing", ast.parse(source))
    if any(verdict.killed for verdict in judged([unbroken], math.inf)):
        sys.exit("mutate: the tests of hardware/safety fail as it is: run them and mend that first")
    return time.monotonic() - began_s


def _run_tests(mutant: Mutant) -> int:
    import hypothesis
    import pytest

    # Nobody reads the example that kills a mutant, and to make it small takes minutes.
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", phases=phases, database=None)
    hypothesis.settings.load_profile("mutants")
    sys.meta_path.insert(0, MutantLoader(mutant))
    first = [str(TESTS / name) for name in FIRST[mutant.module]]
    rest = [str(path) for path in sorted(TESTS.glob("test_*.py")) if str(path) not in first]
    # Plugins that other packages install (ROS brings several) take longer to load than the tests to run.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugins = ["-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin", "-p", "no:unraisableexception"]
    options = [
        *plugins,
        "-x",
        "-q",
        "--no-header",
        "-p",
        "no:cacheprovider",
        "--hypothesis-seed=0",
        "-k",
        f"not ({LEFT_OUT})",
    ]
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return pytest.main([*options, *first]) or pytest.main([*options, *rest])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", choices=MODULES, help="only this one (default: all)")
    parser.add_argument("--show", action="store_true", help="name the mutants that live")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import hypothesis.extra.numpy  # noqa: F401
    import pytest  # noqa: F401

    import hardware.collision_pairs  # noqa: F401  (with all that is slow below it)

    for name in [name for name in sys.modules if name.startswith("hardware.")]:
        if "safety" in name or name == "hardware.collision_pairs":
            del sys.modules[name]
    gc.collect()
    gc.freeze()
    took_s = seconds_unbroken()
    print(f"mutate: the tests take {took_s:.0f} s without a mutant", flush=True)
    killed = made = 0
    for module in [args.module] if args.module else MODULES:
        began_s, before = time.monotonic(), (killed, made)
        for verdict in judged(mutants(module), PATIENCE * took_s):
            made, killed = made + 1, killed + verdict.killed
            if args.show and not verdict.killed:
                print(f"  lives: {module}.py:{verdict.mutant.line}: {verdict.mutant.what}", flush=True)
        of = f"{killed - before[0]} of {made - before[1]} killed"
        print(f"mutate: {module}.py: {of} in {time.monotonic() - began_s:.0f} s", flush=True)
    share = killed / made
    print(
        f"mutate: {killed} of {made} mutants killed, {100 * share:.1f} % (at least {100 * LEAST_SHARE:.0f} %)"
    )
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
