"""Mutation testing of hardware/safety: how many small bugs do its tests notice? `make mutate`.

    python scripts/mutate.py [--module gate] [--show]

Every operator, number, condition, statement and returned value is broken once, one at a time; a mutant is
killed when a test fails, or hangs. What imports slowly is imported once, and each mutant is a fork of that,
so that one takes about as long as the tests that kill it. The tests that throw things at random are left
out: they would kill more, but later. Exit code 1 if less than 95 % are killed.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import gc
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = ("stop", "motion", "command", "status", "caution", "estop", "collision", "gate")
TESTS = ROOT / "tests/hardware/safety"
# Which tests know most of a module; the others follow.
FIRST = {
    "stop": ("test_stop.py",),
    "motion": ("test_limits.py", "test_following.py", "test_workspace.py"),
    "command": ("test_broken_commands.py", "test_rate_and_counters.py", "test_gripper.py"),
    "status": ("test_time.py", "test_caution.py", "test_silence.py"),
    "caution": ("test_caution.py",),
    "estop": ("test_estop.py",),
    "collision": ("test_collision.py",),
    "gate": ("test_following.py", "test_silence.py", "test_stop_and_reset.py", "test_measured_arm.py"),
}
LEFT_OUT = (
    "barrage or breaks_a_joint_limit or never_leaves or silence_ends or nothing_but_a_reset or millisecond"
)
PATIENCE_S = 90
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


def is_killed(mutant: Mutant) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(_run_tests(mutant))
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _run_tests(mutant: Mutant) -> int:
    import pytest

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
    killed = made = 0
    for module in [args.module] if args.module else MODULES:
        before = killed, made
        for mutant in mutants(module):
            made += 1
            if is_killed(mutant):
                killed += 1
            elif args.show:
                print(f"  lives: {module}.py:{mutant.line}: {mutant.what}", flush=True)
        print(f"mutate: {module}.py: {killed - before[0]} of {made - before[1]} killed", flush=True)
    share = killed / made
    print(
        f"mutate: {killed} of {made} mutants killed, {100 * share:.1f} % (at least {100 * LEAST_SHARE:.0f} %)"
    )
    return 0 if share >= LEAST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
