"""Four questions to the byte code of the user's functions, answered from ``dis`` alone.

Which function does a call instruction call, as the program writes it? (``np.zeros(n)`` written in Python, or a
compiled extension that happens to run beneath the same Python frame and would not survive a Variable?) And which
instruction takes a loaded value from the stack? (Is an array used only where the recorder saw it?) And which names does
code only write to? (A counter, a history that results are appended to: what they hold makes no difference.) And
does it fill a text with numbers, as ``"%.3f" % x`` does?

Whatever is not understood is answered with None, or counts as read, and all callers have a safe way to go on then.
"""

from __future__ import annotations

import bisect
import dis
import functools
import sys
from types import CodeType, FrameType
from typing import Any

Instructions = list[dis.Instruction]

_JUMPS = frozenset((*dis.hasjrel, *dis.hasjabs))
_ALWAYS = ("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
_ENDS = ("RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE", "INTERPRETER_EXIT")
_CALLS = ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
_NOTHING = ("NOP", "RESUME", "CACHE", "KW_NAMES", "PRECALL", "EXTENDED_ARG")
_PUSH_ONLY = ("LOAD_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME", "LOAD_SMALL_INT", "PUSH_NULL")
_ONE_RESULT = ("BINARY_", "COMPARE_OP", "UNARY_", "BUILD_", "IS_OP", "CONTAINS_OP", "LIST_TO_TUPLE")
_LOADS = ("LOAD_DEREF", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_ATTR", "LOAD_METHOD", "LOAD_CLASSDEREF", "LOAD_FROM_DICT")


def _effect(instruction: dis.Instruction, jump: bool | None = None) -> int:
    argument = instruction.arg if instruction.opcode >= dis.HAVE_ARGUMENT else None
    return dis.stack_effect(instruction.opcode, argument, jump=jump)


def _depths(code: CodeType, instructions: Instructions) -> dict[int, int]:
    """How many values are on the stack before each instruction, by its offset."""
    place = {instruction.offset: k for k, instruction in enumerate(instructions)}
    depths: dict[int, int] = {}
    waiting = [(0, 0)]
    for entry in getattr(dis.Bytecode(code), "exception_entries", ()):
        waiting.append((place.get(entry.target, -1), entry.depth + 1 + bool(entry.lasti)))
    while waiting:
        k, depth = waiting.pop()
        while 0 <= k < len(instructions) and instructions[k].offset not in depths:
            instruction = instructions[k]
            depths[instruction.offset] = depth
            if instruction.opcode in _JUMPS:
                waiting.append((place.get(instruction.argval, -1), depth + _effect(instruction, jump=True)))
            if instruction.opname in _ALWAYS or instruction.opname in _ENDS:
                break
            depth += _effect(instruction, jump=False)
            k += 1
    return depths


def _callee(instructions: Instructions, depths: dict[int, int], k: int) -> str | None:
    """The name by which the call at ``k`` loads what it calls."""
    call = instructions[k]
    count = call.arg or 0
    match call.opname:
        case "CALL":
            below = count + 2
        case "CALL_KW":
            below = count + 3
        case _:
            below = 4 if sys.version_info >= (3, 14) else 3 + (count & 1)
    while k > 0 and instructions[k - 1].opname in ("PRECALL", "EXTENDED_ARG", "KW_NAMES"):
        k -= 1
    depth = depths.get(instructions[k].offset)
    if depth is None:
        return None
    # The callee fills two slots of the stack; its arguments are computed above them. The last instruction that began
    # below the arguments ends the callee, but for attributes that follow and change no depth.
    arguments = depth - below + 2
    while k > 0:
        k -= 1
        found = depths.get(instructions[k].offset)
        if found is not None and found < arguments:
            break
    while instructions[k + 1].opname == "LOAD_ATTR" and depths.get(instructions[k + 1].offset) == arguments:
        if _effect(instructions[k + 1]):
            return None
        k += 1
    while k > 0 and instructions[k].opname == "PUSH_NULL":
        k -= 1
    name = instructions[k].argval
    if isinstance(name, tuple):  # two loads, or a store and a load, in one instruction
        name = name[-1]
    return name if isinstance(name, str) else None


_sites: dict[int, tuple[CodeType, dict[int, str | None]]] = {}


def called_name(code: CodeType, offset: int) -> str | None:
    """The last part of the name of what the call instruction at ``offset`` calls: ``zeros`` for ``np.zeros(...)``."""
    known = _sites.get(id(code))
    if known is None:
        instructions = list(dis.get_instructions(code))
        depths = _depths(code, instructions)
        sites: dict[int, str | None] = {}
        for k, instruction in enumerate(instructions):
            sites[instruction.offset] = _callee(instructions, depths, k) if instruction.opname in _CALLS else None
        if len(_sites) > 10_000:
            _sites.clear()
        known = _sites[id(code)] = (code, sites)
    while offset not in known[1] and offset > 0:
        offset -= 2  # a frame that has called a Python function stands in the inline cache of its instruction
    return known[1].get(offset)


def only_used_at(codes: set[CodeType], names: set[str], sites: set[tuple[CodeType, int]]) -> bool:
    """Whether every place that loads one of ``names`` hands it straight to one of the instructions ``sites``."""
    for code in codes:
        if not names & {*code.co_names, *code.co_freevars, *code.co_cellvars}:
            continue
        instructions = list(dis.get_instructions(code))
        starts = [instruction.offset for instruction in instructions]
        here = {starts[bisect.bisect(starts, offset) - 1] for site, offset in sites if site is code}
        for k, instruction in enumerate(instructions):
            if instruction.opname.startswith(_LOADS) and instruction.argval in names:
                taken = _consumer(instructions, k)
                if taken is None or taken not in here:
                    return False
    return True


def _consumer(instructions: Instructions, k: int) -> int | None:
    """The offset of the instruction that takes from the stack what instruction ``k`` put there."""
    above = 0
    for instruction in instructions[k + 1 :]:
        name = instruction.opname
        if instruction.is_jump_target:
            return None
        if name in _NOTHING:
            continue
        if name.startswith(_PUSH_ONLY):
            above += _effect(instruction)
            continue
        pops: Any
        if name in ("CALL", "CALL_KW"):
            pops, pushes = (instruction.arg or 0) + 2 + (name == "CALL_KW"), 1
        elif name in ("LOAD_ATTR", "LOAD_METHOD"):
            pops, pushes = 1, 1 + _effect(instruction)
        elif name.startswith(_ONE_RESULT):
            pops, pushes = 1 - _effect(instruction), 1
        else:
            return None
        if pops > above:
            return instruction.offset
        above += pushes - pops
    return None


_GROWING = ("append", "appendleft", "extend", "add")  # methods that return nothing
_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")


@functools.lru_cache(maxsize=4096)
def only_written(code: CodeType) -> frozenset[str]:
    """The names, of variables and attributes, to whose value nothing in a code object but themselves can be due."""
    instructions = [i for i in dis.get_instructions(code) if i.opname not in _NOTHING]
    names = {*code.co_names, *code.co_freevars}
    for k, instruction in enumerate(instructions):
        if instruction.opname.startswith(("STORE_", "LOAD_CLOSURE", "COPY_FREE_VARS")):
            continue
        found = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        for name in found:
            if isinstance(name, str) and name in names and not _grows(instructions, k, name):
                names.discard(name)
    return frozenset(names)


def _grows(instructions: Instructions, k: int, name: str) -> bool:
    """Whether instruction ``k`` begins ``name.append(...)``, ``name += 1`` or ``name[key] += 1``."""
    rest = instructions[k + 1 : k + 10]
    if rest and rest[0].opname in ("LOAD_ATTR", "LOAD_METHOD") and rest[0].argval in _GROWING:
        return True
    if not rest or rest[0].opname not in _CONSTANTS:
        return False
    if rest[1].opname == "COPY" and rest[2].opname == "COPY" and rest[3].opname.startswith("BINARY_"):
        rest = rest[4:]  # an item of it
    if len(rest) < 3 or rest[0].opname not in _CONSTANTS or not rest[1].argrepr.endswith("="):
        return False
    stores = [i for i in rest[2:] if i.opname != "SWAP"]
    return bool(stores) and (stores[0].opname == "STORE_SUBSCR" or stores[0].argval == name)


_REMAINDERS = {
    instruction.arg
    for source in ("a % b", "a %= b")
    for instruction in dis.get_instructions(compile(source, "", "exec"))
    if instruction.opname == "BINARY_OP"
}


def fills_text(frame: FrameType) -> bool:
    """Whether a frame that asks a recorded number for its float is at ``text % number``.

    Any other ``%`` comes to the recorded number itself, which is no float: only a text asks for one.
    """
    code, place = frame.f_code.co_code, frame.f_lasti
    return 0 <= place < len(code) and dis.opname[code[place]] == "BINARY_OP" and code[place + 1] in _REMAINDERS
