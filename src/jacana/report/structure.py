"""What a Jacobian looks like before it has numbers: its pattern, its terms, the order of elimination, the format.

Everything is counted on the host from the terms, as the sparse formats do; nothing is evaluated.
"""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import trees
from ..differentiate.eliminate import Elimination, Estimate, Order, eliminate, estimate
from ..errors import InvalidInputError
from ..graph.index import Affine, Index, bounds, flatten, substitute
from ..graph.node import Array, Node, Term
from ..record import Recording
from ..replay import Replay, Traced, _Arguments
from ..results import AUTO_DENSE_SIZE, AUTO_DENSITY, AUTO_OPERATOR, Stacked, _automatic, gram, stack
from ..structure.operator import entry_count, factor_nodes
from ..structure.positions import entry_positions
from ..structure.support import restrict_to_masks
from ..transforms import _gradient_nodes, _scalar_output
from . import picture
from .formula import Formulas, LabelledTerm

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["Derived", "Structure", "assess", "derive", "structure_of"]

MAX_COUNTED = 20_000_000  # entries up to which a pattern is counted entry by entry
MAX_COMPARED = 400  # vertices up to which other orders of elimination are tried for comparison
MAX_PAIRS = 10_000  # pairs of terms that trying another order may compose
SAMPLED = 500_000  # points of a term that a picture takes where entries are too many to be counted
SHOWN_TERMS = 16
SHOWN_LEAVES = 8


@dataclass(frozen=True, eq=False)
class Structure:
    """The structure of a Jacobian, a Hessian or ``J.T @ J``; printed, it is a page with a picture.

    Attributes:
        name: what it is the structure of.
        shape: rows and columns of the matrix: all results by all arguments, leaves one after another in C order.
        rows, columns: the range of each leaf of the result and of the argument, by the name of the leaf.
        nnz: structural entries: the number that a sparse format stores.
        exact: whether ``nnz``, ``bandwidth`` and ``blocks`` were found; else there are too many entries to count,
            ``nnz`` and ``bandwidth`` are upper bounds and ``blocks`` is None.
        bandwidth: how far entries reach below and above the diagonal, ``(lower, upper)``.
        blocks: rows and columns of each diagonal block, an integer array of shape (blocks, 2), if the matrix is
            block-diagonal with more than one block; else None.
        terms: the matrix in index notation.
        order: the order of elimination that was taken.
        orders: estimated multiplications of that order and, where they could be compared, of pure forward and
            pure reverse.
        vertices: inner nodes that were eliminated.
        note: why other orders were not compared, or nothing.
        format: what ``format="auto"`` chooses here.
        reason: why.
        entries: rows and columns of the entries, sorted, read-only (None if they were too many to count).
    """

    name: str
    shape: tuple[int, int]
    rows: Mapping[str, range]
    columns: Mapping[str, range]
    nnz: int
    exact: bool
    bandwidth: tuple[int, int]
    blocks: Array | None
    terms: tuple[LabelledTerm, ...]
    order: str
    orders: tuple[Estimate, ...]
    vertices: int
    note: str
    format: str
    reason: str
    entries: tuple[Array, Array] | None = field(repr=False)
    _formulas: Formulas = field(repr=False)
    _stacked: Stacked = field(repr=False)

    @property
    def density(self) -> float:
        """The share of entries that is structural; NaN for a matrix without entries."""
        size = self.shape[0] * self.shape[1]
        return self.nnz / size if size else math.nan

    @property
    def program(self) -> str:
        """The program of all coefficients and masks; terms refer to its nodes as ``%5``."""
        return self._formulas.program()

    @property
    def pattern(self) -> sparse.csr_array:
        """The pattern as a boolean ``scipy.sparse.csr_array``.

        Raises:
            InvalidInputError: there are too many entries.
        """
        from scipy import sparse

        if self.entries is None:
            raise InvalidInputError(f"the pattern has about {self.nnz:,} entries and was not written out")
        return sparse.csr_array((np.ones(self.nnz, dtype=bool), self.entries), shape=self.shape)

    def grid(self, height: int, width: int) -> Array:
        """A boolean picture of at most ``height`` by ``width`` cells, true where an entry falls."""
        grid = picture.grid_size(self.shape, height, width)
        if 0 in self.shape:
            return np.zeros((0, 0), dtype=bool)
        if self.entries is not None:
            return picture.cells(*self.entries, self.shape, grid)
        found = np.zeros(grid, dtype=bool)
        stacked = self._stacked
        for term in stacked.terms:
            positions = entry_positions(_sampled(term), stacked.rows, stacked.cols)
            row, column = np.divmod(positions.ravel(), self.shape[1])
            found |= picture.cells(row, column, self.shape, grid)
        return found

    def picture(self) -> str:
        """The pattern in characters: one dot an entry where it is small, braille where it is not."""
        rows, columns = self.shape
        if rows <= picture.EXACT_ROWS and columns <= picture.EXACT_COLUMNS:
            lines = picture.dots(self.grid(picture.EXACT_ROWS, picture.EXACT_COLUMNS))
        else:
            lines = picture.braille(self.grid(4 * picture.TEXT_ROWS, 2 * picture.TEXT_COLUMNS))
        return "\n".join(picture.framed(lines))

    def facts(self) -> list[tuple[str, str]]:
        """The page without terms and picture: ``(heading, text)``."""
        most = "" if self.exact else "at most "
        share = "" if math.isnan(self.density) else f", {_percent(self.density)}"
        lower, upper = self.bandwidth
        return [
            ("shape", f"{self.shape[0]:,} x {self.shape[1]:,}"),
            ("rows", _ranges(self.rows)),
            ("columns", _ranges(self.columns)),
            ("entries", f"{most}{self.nnz:,}{share}"),
            ("bandwidth", f"{most}{lower:,} below and {upper:,} above the diagonal"),
            ("blocks", self._block_text()),
            ("order", self._order_text()),
            ("auto", f"{self.format}: {self.reason}"),
        ]

    def _block_text(self) -> str:
        if self.blocks is None:
            return "not block-diagonal" if self.exact else "not looked for"
        sizes, counts = np.unique(self.blocks, axis=0, return_counts=True)
        parts = [f"{n:,} of {h:,} x {w:,}" for (h, w), n in zip(sizes.tolist(), counts.tolist(), strict=True)]
        more = f" and {len(parts) - SHOWN_LEAVES} more sizes" if len(parts) > SHOWN_LEAVES else ""
        return ", ".join(parts[:SHOWN_LEAVES]) + more

    def _order_text(self) -> str:
        chosen, *others = self.orders
        text = f"{_ORDER_NAMES[self.order]}: {self.vertices:,} vert{'ex' if self.vertices == 1 else 'ices'}, "
        text += f"about {chosen.cost:,.0f} multiplications"
        compared = "; ".join(
            f"{_ORDER_NAMES[o.order]} {'' if o.complete else 'more than '}{o.cost:,.0f}" for o in others
        )
        return text + (f" ({compared})" if compared else "") + (f" ({self.note})" if self.note else "")

    def __str__(self) -> str:
        lines = [self.name, *(f"  {heading:<10} {text}" for heading, text in self.facts())]
        lines.append(f"  {'terms':<10} {len(self.terms):,}")
        lines += [f"    {term}" for term in self.terms[:SHOWN_TERMS]]
        if len(self.terms) > SHOWN_TERMS:
            lines.append(f"    ... and {len(self.terms) - SHOWN_TERMS:,} more")
        for name, table in self._formulas.tables().items():
            low, high = int(table.values.min(initial=0)), int(table.values.max(initial=0))
            size = " x ".join(f"{n:,}" for n in table.values.shape)
            lines.append(f"    {name}: a table of {size} integers, {low:,} to {high:,}")
        return "\n".join([*lines, *(f"  {line}" for line in self.picture().splitlines())])

    def __repr__(self) -> str:
        return f"<structure of the {self.name}: {self.shape[0]} x {self.shape[1]}, {self.nnz} entries>"

    def _repr_svg_(self) -> str:
        return picture.svg(self)

    def _repr_html_(self) -> str:
        cell = "".join(
            f'<tr><th style="text-align:left">{heading}</th><td style="text-align:left">{html.escape(text)}</td></tr>'
            for heading, text in [*self.facts(), ("terms", f"{len(self.terms):,}")]
        )
        terms = "\n".join(html.escape(str(term)) for term in self.terms[:SHOWN_TERMS])
        if len(self.terms) > SHOWN_TERMS:
            terms += f"\n... and {len(self.terms) - SHOWN_TERMS:,} more"
        return (
            f'<div style="display:flex;gap:1.5em;align-items:flex-start"><div><b>{html.escape(self.name)}</b>'
            f"<table>{cell}</table><pre>{terms}</pre></div>{picture.svg(self)}</div>"
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the pattern with matplotlib: blocks outlined, the band between dashed lines.

        Args:
            ax: the axes to draw on; new ones by default.

        Returns:
            The axes.

        Raises:
            ImportError: matplotlib is not installed (``pip install 'jacana[plot]'``).
        """
        return picture.plot(self, ax)


_ORDER_NAMES = {"forward": "forward", "reverse": "reverse", "cost": "cheapest first"}


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"


def _ranges(ranges: Mapping[str, range]) -> str:
    parts = [f"{name} [{r.start}:{r.stop}]" for name, r in list(ranges.items())[:SHOWN_LEAVES]]
    more = f", and {len(ranges) - SHOWN_LEAVES} more" if len(ranges) > SHOWN_LEAVES else ""
    return ", ".join(parts) + more or "none"


# --- from a transform to its terms ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Derived:
    """A matrix in terms, with everything a page about it needs.

    Attributes:
        recording: the recording of the function.
        traced: the arguments and results that it has.
        outputs: the nodes that were differentiated.
        found: the elimination.
        order: the order that was asked for.
        row_names, column_names: the names of the leaves.
        stacked: the terms as one matrix.
        names: the name of every input.
    """

    title: str
    recording: Recording
    traced: Traced
    outputs: tuple[Node, ...]
    found: Elimination
    order: Order
    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    stacked: Stacked
    names: Mapping[Node, str]
    gram: bool = False


def derive(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Derived:
    """Record the function of a transform at the arguments and find the terms of its matrix.

    Raises:
        InvalidInputError: the transform does not make a matrix.
    """
    make = _MATRICES.get(replay.verb)
    if make is None:
        raise InvalidInputError(f"{replay.verb} has no structure; ask one of {', '.join(_MATRICES)}")
    recording, traced, names = _record(replay, args, kwargs)
    columns = tuple(names[node] for node in traced.by)
    title, rows = f"{replay.verb} of {traced.name}", tuple(_tree_names(traced.output_tree, "y"))
    order = _asked_order(replay.build)
    outputs = list(traced.outputs)
    if make == "hessian":
        outputs, rows = _gradient_nodes(_scalar_output(traced, replay.verb), traced.by, "auto"), columns
    found = eliminate(outputs, traced.by, order)
    if make == "gram":
        terms, places = gram(outputs, traced.by, found.terms)
        stacked, rows = stack(places, traced.by, terms), columns
    else:
        stacked = stack(outputs, traced.by, found.terms)
    return Derived(
        title, recording, traced, tuple(outputs), found, order, rows, columns, stacked, names, make == "gram"
    )


_MATRICES = {
    "jacobian": "jacobian",
    "value_and_jacobian": "jacobian",
    "grad": "jacobian",
    "value_and_grad": "jacobian",
    "hessian": "hessian",
    "gauss_newton": "gram",
}


def _asked_order(build: Any) -> Order:
    """The order that the user gave to the transform, whose build step is a partial function."""
    if isinstance(build, partial):
        given = inspect.signature(build.func).bind_partial(*build.args, **build.keywords).arguments
        if "order" in given:
            order: Order = given["order"]
            return order
    return "auto"


def _record(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Recording, Traced, dict[Node, str]]:
    recording, traced = replay.trace(args, kwargs)
    if traced.is_complex or len(traced.inputs) != len(_Arguments(replay, args, kwargs).input_at):
        raise InvalidInputError(
            f"the structure of {replay.verb} of {replay.name} is shown for real arguments and results; take that of "
            "jacana.real_form(f) (docs/complex.md)"
        )
    spelled: list[str] = []
    for argument, root in zip(args, _parameter_names(replay.function, len(args)), strict=True):
        spelled += _tree_names(trees.flatten(argument)[1], root)
    for name in sorted(kwargs):  # the order of leaves in a dictionary
        spelled += _tree_names(trees.flatten(kwargs[name])[1], name)
    arrays = _Arguments(replay, args, kwargs).input_at
    return recording, traced, {node: spelled[k] for node, k in zip(traced.inputs, arrays, strict=True)}


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    """What the user calls the positional arguments."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    except (TypeError, ValueError):
        names = []
    if count == 1 and not names:
        return ["x"]
    return [*names[:count], *(f"x{k}" for k in range(len(names), count))]


def _tree_names(structure: Any, root: str) -> list[str]:
    """``p['a'][0]`` for each leaf of a tree called ``p``."""
    return [root + trees.leaf_name(structure, k) for k in range(structure.num_leaves)]


# --- counting -------------------------------------------------------------------------------------------------------


def structure_of(replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Structure:
    """The structure of the matrix that a transform makes at these arguments."""
    return assess(derive(replay, args, kwargs))


def assess(derived: Derived) -> Structure:
    """Count the pattern, label the terms, compare the orders."""
    stacked = derived.stacked
    shape = (math.prod(stacked.rows), math.prod(stacked.cols))
    count = entry_count(stacked.terms)
    entries, blocks = None, None
    if count <= MAX_COUNTED:
        entries = _entries(stacked, shape)
        nnz, exact, bandwidth = len(entries[0]), True, _bandwidth(*entries)
        blocks = _blocks(*entries, shape)
    else:
        nnz, exact, bandwidth = min(count, shape[0] * shape[1]), False, _reach(stacked)
    chosen, reason = _chosen_format(stacked, nnz)
    formulas, terms = _labelled(derived)
    orders, note = _compared(derived)
    outputs = derived.traced.by if derived.gram else derived.outputs
    return Structure(
        name=derived.title,
        shape=shape,
        rows=_leaf_ranges(derived.row_names, outputs),
        columns=_leaf_ranges(derived.column_names, derived.traced.by),
        nnz=nnz,
        exact=exact,
        bandwidth=bandwidth,
        blocks=blocks,
        terms=terms,
        order=derived.found.order,
        orders=orders,
        vertices=derived.found.vertices,
        note=note,
        format=chosen,
        reason=reason,
        entries=entries,
        _formulas=formulas,
        _stacked=stacked,
    )


def _leaf_ranges(names: Sequence[str], nodes: Sequence[Node]) -> Mapping[str, range]:
    ranges, start = {}, 0
    for name, node in zip(names, nodes, strict=True):
        ranges[name] = range(start, start + node.size)
        start += node.size
    return MappingProxyType(ranges)


def _entries(stacked: Stacked, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns of the distinct entries, sorted."""
    terms = [part for term in stacked.terms for part in restrict_to_masks(term)]
    keys = [entry_positions(term, stacked.rows, stacked.cols).ravel() for term in terms]
    every = np.concatenate(keys) if keys else np.empty(0, np.int64)
    del keys
    rising = every[1:] > every[:-1]
    if not rising.all():
        every.sort(kind="stable")
        first = np.ones(len(every), dtype=bool)
        np.not_equal(every[1:], every[:-1], out=first[1:])
        every = every[first]
    dtype = np.int32 if max(shape) < 2**31 else np.int64
    row = (every // max(shape[1], 1)).astype(dtype)
    every %= max(shape[1], 1)
    column = every.astype(dtype)
    row.flags.writeable = column.flags.writeable = False
    return row, column


def _bandwidth(row: Array, column: Array) -> tuple[int, int]:
    if not len(row):
        return 0, 0
    below = row.astype(np.int64)
    below -= column
    return max(int(below.max()), 0), max(-int(below.min()), 0)


def _reach(stacked: Stacked) -> tuple[int, int]:
    """Bounds of the bandwidth from the index expressions alone."""
    lower = upper = 0
    for term in stacked.terms:
        row: Index = flatten(term.row, stacked.rows, term.domain) if term.row else Affine(0)
        column: Index = flatten(term.col, stacked.cols, term.domain) if term.col else Affine(0)
        if isinstance(row, Affine) and isinstance(column, Affine):
            strides = dict(row.strides)
            for a, s in column.strides:
                strides[a] = strides.get(a, 0) - s
            low, high = bounds(Affine(row.offset - column.offset, tuple(strides.items())), term.domain)
        else:
            (row_low, row_high), (low, high) = bounds(row, term.domain), bounds(column, term.domain)
            low, high = row_low - high, row_high - low
        lower, upper = max(lower, high), max(upper, -low)
    return lower, upper


def _blocks(row: Array, column: Array, shape: tuple[int, int]) -> Array | None:
    """Rows and columns of each diagonal block: cut wherever all entries above lie left of all entries below."""
    rows, columns = shape
    if rows < 2 or columns < 2 or not len(row):
        return None
    # In sorted order the last entry of a row has its greatest column, the first one the least.
    starts = np.flatnonzero(np.concatenate([[True], row[1:] != row[:-1]]))
    ends = np.append(starts[1:], len(row)) - 1
    last = np.full(rows, -1, dtype=np.int64)
    least = np.full(rows, columns, dtype=np.int64)
    last[row[ends]] = column[ends]
    least[row[starts]] = column[starts]
    before = np.maximum.accumulate(last)[:-1]  # the greatest column above the cut after each row but the last
    after = np.minimum.accumulate(least[::-1])[::-1][1:]
    cuts = np.flatnonzero(before < after)
    if not len(cuts):
        return None
    # Where empty rows or columns leave a choice, cut on the diagonal from corner to corner.
    places = np.clip((cuts + 1) * columns // rows, before[cuts] + 1, after[cuts])
    heights = np.diff(np.concatenate([[0], cuts + 1, [rows]]))
    widths = np.diff(np.concatenate([[0], places, [columns]]))
    blocks: Array = np.stack([heights, widths], axis=1)
    blocks.flags.writeable = False
    return blocks


def _sampled(term: Term) -> Term:
    """The term on every so many points of its longest axes, for a picture."""
    sizes = list(term.domain)
    steps = [1] * len(sizes)
    while math.prod(sizes) > SAMPLED:
        k = max(range(len(sizes)), key=lambda a: sizes[a])
        steps[k] *= 2
        sizes[k] = -(-term.domain[k] // steps[k])
    spread = [Affine(0, ((a, s),)) for a, s in enumerate(steps)]
    row, column = (tuple(substitute(e, spread, sizes) for e in side) for side in (term.row, term.col))
    return Term(tuple(sizes), row, column)


def _chosen_format(stacked: Stacked, nnz: int) -> tuple[str, str]:
    """What ``format="auto"`` chooses and why, in the words of its own thresholds."""
    chosen = _automatic(stacked)
    size = math.prod(stacked.rows) * math.prod(stacked.cols)
    if chosen == "operator":
        factors = sum(node.size for node in factor_nodes(stacked.terms))
        entries = entry_count(stacked.terms)
        return chosen, (
            f"storing would take {entries:,} values, the factors hold {factors:,} (over {AUTO_OPERATOR:,} and 8 to 1)"
        )
    if chosen == "dense" and size <= AUTO_DENSE_SIZE:
        return (
            chosen,
            f"a matrix of {size:,} entries is not worth indices (up to {AUTO_DENSE_SIZE:,})",
        )
    share = _percent(min(1.0, entry_count(stacked.terms) / size))
    if chosen == "dense":
        return chosen, f"{share} of the entries are structural ({_percent(AUTO_DENSITY)} or more)"
    return chosen, f"{share} of {size:,} entries are structural (less than {_percent(AUTO_DENSITY)})"


def _labelled(derived: Derived) -> tuple[Formulas, tuple[LabelledTerm, ...]]:
    pairs: list[tuple[str, str, Term]]
    if derived.gram:
        pairs = [(derived.row_names[0], derived.column_names[0], term) for term in derived.stacked.terms]
    else:
        pairs = [
            (row, column, term)
            for row, line in zip(derived.row_names, derived.found.terms, strict=True)
            for column, terms in zip(derived.column_names, line, strict=True)
            for term in terms
        ]
    nodes = [node for _, _, term in pairs for node, _ in (*term.factors, *term.masks)]
    formulas = Formulas(nodes, derived.names)
    plain = len(derived.row_names) == len(derived.column_names) == 1
    return formulas, tuple(LabelledTerm(term, formulas, row, column, plain) for row, column, term in pairs)


def _compared(derived: Derived) -> tuple[tuple[Estimate, ...], str]:
    """The order that was taken and, where that is cheap, the others."""
    found = derived.found
    orders = [Estimate(found.order, found.cost, True)]
    if found.vertices > MAX_COMPARED:
        return tuple(orders), f"other orders are compared up to {MAX_COMPARED} vertices"
    others: tuple[Order, ...] = ("forward", "reverse", "cost")
    for other in others:
        if other != found.order:
            limit = 1e3 * (found.cost + 1e4)
            orders.append(estimate(derived.outputs, derived.traced.by, other, limit, MAX_PAIRS))
    return tuple(orders), ""
