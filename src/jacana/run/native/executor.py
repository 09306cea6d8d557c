"""Programs as machine code: found compiled already, here or on disk, or planned and compiled now."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from ...graph.fingerprint import Fingerprint, fingerprint
from ...graph.node import Node
from ...plan import plan_native
from ...plan.loops import lowered
from .. import background, store
from ..program import Program, Runnable
from .calls import GIL_WORK, module_image, slow_call
from .engine import builtin, fast_calls, link, machine, object_image, optimise
from .entry import NAME as ENTRY
from .entry import bind, emit_entry, entry_of
from .keys import environment
from .recipe import Emitted, Recipe, make_recipe, read_recipe, write_recipe
from .rows import emit_whole
from .runner import make_runner
from .split import split_straight
from .stages import emit_stages

REMEMBERED = 256  # programs whose machine code is found again by their structure


@dataclass(frozen=True)
class Code:
    """Machine code that is loaded: a recipe as JSON, and its functions. It serves every program of its structure."""

    recipe: Any
    functions: dict[str, Callable[..., Any]]


_loaded: OrderedDict[tuple[bytes, bytes], Code] = OrderedDict()
_lock = threading.Lock()


def compile_native(program: Program, known: Fingerprint | None = None) -> Runnable:
    """The program as machine code, with NumPy for the steps that loops are not good at.

    ``known``: what the machine code is to be found by, if that is not the structure of the program itself.
    """
    with background.compiling:
        if known is None:
            known = fingerprint(program.inputs, program.outputs)
            found = None if known is None else recall_native(known, program.inputs)
            if found is not None:
                return found
        return _compile(program, known)


def recall_native(known: Fingerprint, inputs: Sequence[Node]) -> Runnable | None:
    """A program of these inputs that has been compiled before, in this process or another."""
    count = len(inputs)
    with background.compiling:
        key = (known.digest, environment())
        with _lock:
            code = _loaded.get(key)
            if code is not None:
                _loaded.move_to_end(key)
        if code is not None:
            return make_runner(read_recipe(code.recipe, known, count), inputs, code.functions)
        found = store.fetch(*key)
        if found is None:
            return None
        text, image = found
        try:
            recipe = read_recipe(text, known, count)
            functions = _functions(recipe, image)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OSError):
            return None  # right digest, wrong content: somebody else's format; or a C function is missing here
        _remember(key, Code(text, functions))
        return make_runner(recipe, inputs, functions)


def _remember(key: tuple[bytes, bytes], code: Code) -> None:
    with _lock:
        _loaded[key] = code
        while len(_loaded) > REMEMBERED:
            _loaded.popitem(last=False)


def emit_program(program: Program) -> Emitted:
    """Plan a program and write its kernels as LLVM code."""
    whole = emit_whole(program)
    if whole is not None:
        return whole
    program = Program(program.inputs, tuple(lowered(program.outputs)))
    plan = plan_native(program.outputs)
    background.checkpoint()
    target = machine()
    module = ir.Module("jacana")
    module.triple = target.triple
    module.data_layout = str(target.target_machine.target_data)
    symbols: set[str] = set()
    cut: dict[str, str] = {}  # long straight-line kernels, by name
    stages = emit_stages(module, target, plan, program.outputs, symbols)
    for emitter in (emitter for stage in stages for emitter in stage.emitters):
        pieces = split_straight(emitter.function)
        if pieces is not None:
            emitter.function.blocks.clear()  # what is left is its declaration
            cut[emitter.function.name] = pieces
    recipe = make_recipe(program, plan, stages, symbols)
    entry = entry_of(recipe, program.inputs) if len(stages) == 1 and stages[0].work <= GIL_WORK else None
    if entry is not None:
        emit_entry(module, entry, stages[0].function, symbols)
        recipe = replace(recipe, symbols=tuple(sorted(symbols)), entered=True)
    called = [str(f) for f in module.functions if f.is_declaration and f.name not in cut]
    return Emitted(recipe, str(module), "\n".join([*called, *cut.values()]) if cut else "")


def optimised(program: Program) -> Any:
    """The program as a module of optimised LLVM code, to be looked at."""
    with background.compiling:
        emitted = emit_program(program)
        return optimise(emitted.text, emitted.straight)


def _compile(program: Program, known: Fingerprint | None) -> Runnable:
    emitted = emit_program(program)
    recipe = emitted.recipe
    functions: dict[str, Callable[..., Any]] = {}
    if recipe.launches:
        background.checkpoint()
        text = None if known is None else write_recipe(recipe, known)
        if known is not None and text is not None:
            image = object_image(emitted.text, emitted.straight)
            functions = _functions(recipe, image)
            key = (known.digest, environment())
            _remember(key, Code(text, functions))
            store.keep(*key, text, image)
        else:
            functions = _functions(recipe, module_image(emitted.text, emitted.straight))
    return make_runner(recipe, program.inputs, functions)


def _functions(recipe: Recipe, image: bytes) -> dict[str, Callable[..., Any]]:
    """Load machine code and make its functions callable; the entry becomes a function that binds it."""
    # Without the fast path the group itself is called through ctypes.
    quick = fast_calls()
    exported = {name: name if quick else name.removeprefix("call_") for name in recipe.exported}
    addresses, keep = link(image, set(recipe.symbols), [*exported.values(), *([ENTRY] if recipe.entered else [])])
    slots = {step.name: step.slots for step in recipe.launches}
    functions: dict[str, Callable[..., Any]] = {
        name: builtin(addresses[where], keep) if quick else slow_call(addresses[where], len(slots[name]), keep)
        for name, where in exported.items()
    }
    if recipe.entered:
        functions[ENTRY] = lambda entry, fixed: bind(entry, addresses[ENTRY], keep, fixed)
    return functions
