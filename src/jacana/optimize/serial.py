"""A fit as JSON, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError
from .linearization import Linearization
from .norms import euclidean_norm
from .parameters import flatten_parameters
from .search import History
from .space import Space

if TYPE_CHECKING:
    from .result import LeastSquaresResult

__all__ = ["from_json", "to_json"]

_KIND = "jacana.LeastSquaresResult"
_NUMBERS = (
    "cost",
    "optimality",
    "success",
    "status",
    "message",
    "nfev",
    "njev",
    "nit",
    "nrefused",
    "method",
    "absolute_noise",
)


def to_json(result: LeastSquaresResult) -> str:
    """Return a result as JSON. Numbers keep all their digits; NaN and inf are written as Python's json does."""
    content = {
        "kind": _KIND,
        "version": 1,
        "x": _plain(result.x),
        "dtype": str(np.asarray(result.flat).dtype),
        **{name: getattr(result, name) for name in _NUMBERS},
        "names": list(result.names),
        "free": result.space.free.tolist(),
        "active_mask": result.active_mask.tolist(),
        "flat": result.flat.tolist(),
        "fun": result.fun.tolist(),
        "jac": _matrix(result.jac),
        "model": {
            "residual": result.model.residual.tolist(),
            "jacobian": None if result.model.jacobian is result.jac else _matrix(result.model.jacobian),
            "norm": result.model.norm,
        },
        "history": {
            name: getattr(result.history, name).tolist() for name in ("cost", "step_length", "trust", "accepted")
        },
    }
    return json.dumps(content)


def from_json(text: str) -> LeastSquaresResult:
    """Return the result that `to_json` wrote."""
    from .result import LeastSquaresResult

    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"this is no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise InvalidInputError("this JSON is not a least-squares result")
    x = _arrays(content["x"])
    parameters, flat = flatten_parameters(x)
    flat = np.array(content["flat"], dtype=content["dtype"])
    jacobian = _from_matrix(content["jac"])
    model = content["model"]
    history = content["history"]
    residual = np.array(model["residual"])
    point = Linearization(
        residual,
        jacobian if model["jacobian"] is None else _from_matrix(model["jacobian"]),
        float(model["norm"]) if model["norm"] is not None else euclidean_norm(residual),
    )
    return LeastSquaresResult(
        x=parameters.unravel(flat),
        fun=np.array(content["fun"]),
        jac=jacobian,
        grad=point.gradient,
        active_mask=np.array(content["active_mask"], dtype=np.int_),
        flat=flat,
        history=History(
            np.array(history["cost"]),
            np.array(history["step_length"]),
            np.array(history["trust"]),
            np.array(history["accepted"], dtype=bool),
        ),
        space=Space(parameters, flat.copy(), np.array(content["free"], dtype=np.int_), names=tuple(content["names"])),
        model=point,
        **{name: content[name] for name in _NUMBERS if name in content},
    )


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {"dict": [[key, _plain(value)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__ if type(tree) in (list, tuple) else "tuple": [_plain(item) for item in tree]}
    if tree is None:
        return None
    array = np.asarray(tree)
    if array.dtype.kind not in "iuf":
        raise InvalidInputError(f"a {type(tree).__name__} among the parameters cannot be written as JSON")
    return {"array": array.tolist(), "shape": list(array.shape), "dtype": str(array.dtype)}


def _arrays(content: Any) -> Any:
    if content is None:
        return None
    if "array" in content:
        return np.array(content["array"], dtype=content["dtype"]).reshape(content["shape"])
    if "dict" in content:
        return {key: _arrays(value) for key, value in content["dict"]}
    if "list" in content:
        return [_arrays(item) for item in content["list"]]
    return tuple(_arrays(item) for item in content["tuple"])


def _matrix(jacobian: Any) -> Any:
    if hasattr(jacobian, "indptr"):
        parts = {name: getattr(jacobian, name).tolist() for name in ("data", "indices", "indptr")}
        return {"shape": list(jacobian.shape), **parts}
    if isinstance(jacobian, np.ndarray):
        return {"shape": list(jacobian.shape), "dense": jacobian.ravel().tolist()}
    raise InvalidInputError("a result whose Jacobian is an operator cannot be written as JSON")


def _from_matrix(content: Any) -> Any:
    if "dense" in content:
        return np.array(content["dense"], dtype=np.float64).reshape(content["shape"])
    from scipy import sparse

    parts = (np.array(content["data"]), np.array(content["indices"]), np.array(content["indptr"]))
    return sparse.csr_array(parts, shape=tuple(content["shape"]))
