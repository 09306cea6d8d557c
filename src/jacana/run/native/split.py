"""Long straight-line code cut into functions of a size that LLVM is quick with.

The time that instruction selection and register allocation take grows faster than a basic block does. A kernel
without loops is one block; past a few thousand instructions it is cut where it stands, in order, and values that a
later piece needs go through memory. No instruction changes, so no number does.
"""

from __future__ import annotations

import re
from typing import Any

PIECE = 500  # instructions of a piece
WHOLE = 2_000  # instructions up to which a block stays one
SCALARS = {"double", "float", "i1", "i8", "i32", "i64", "ptr"}  # what fits between two pieces

_REFERENCE = re.compile(r'%"(?:[^"\\]|\\.)*"')


def split_straight(function: Any) -> str | None:
    """The text of a function of one block and of the pieces it calls; None if it is short, or has loops or vectors."""
    if len(function.blocks) != 1 or len(function.blocks[0].instructions) <= WHOLE:
        return None
    instructions = function.blocks[0].instructions
    types = {f'%"{i.name}"': str(i.type) for i in instructions if str(i.type) != "void"}
    if not set(types.values()) <= SCALARS:
        return None
    lines = [str(i) for i in instructions if i is not function.blocks[0].terminator]
    pieces = [lines[k : k + PIECE] for k in range(0, len(lines), PIECE)]
    reads: list[dict[str, None]] = []
    last: dict[str, int] = {}  # the last piece that reads a value
    for k, piece in enumerate(pieces):
        names = dict.fromkeys(name for line in piece for name in _REFERENCE.findall(line) if name in types)
        reads.append(names)
        last.update(dict.fromkeys(names, k))
    arguments = ", ".join(f'ptr noalias %"{a.name}"' for a in function.args)
    given = ", ".join(f'ptr %"{a.name}"' for a in function.args)
    slot: dict[str, int] = {}
    free: list[int] = []
    count = 0
    texts = []
    for k, piece in enumerate(pieces):
        made = [line.split(" =", 1)[0].strip() for line in piece if line.lstrip().startswith("%")]
        own = set(made)
        body = []
        for n, name in enumerate(name for name in reads[k] if name not in own):
            body += [_place(f"in{n}", slot[name]), f'{name} = load {types[name]}, ptr %"in{n}", align 8']
        body += piece
        for name in [name for name, place in slot.items() if last[name] == k]:
            free.append(slot.pop(name))
        for n, name in enumerate(name for name in made if last.get(name, -1) > k):
            if not free:
                free.append(count)
                count += 1
            slot[name] = free.pop()
            body += [_place(f"out{n}", slot[name]), f'store {types[name]} {name}, ptr %"out{n}", align 8']
        code = "\n  ".join(body)
        texts.append(
            f'define internal void @"{function.name}_{k}"({arguments}, ptr noalias %"between") noinline '
            f"{{\nentry:\n  {code}\n  ret void\n}}"
        )
    calls = "\n  ".join(f'call void @"{function.name}_{k}"({given}, ptr %"between")' for k in range(len(pieces)))
    texts.append(
        f'define void @"{function.name}"({arguments}) {{\nentry:\n  %"between" = alloca [{max(count, 1)} x i64], '
        f"align 8\n  {calls}\n  ret void\n}}"
    )
    return "\n".join(texts)


def _place(name: str, slot: int) -> str:
    return f'%"{name}" = getelementptr inbounds i64, ptr %"between", i64 {slot}'
