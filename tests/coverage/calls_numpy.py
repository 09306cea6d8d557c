"""One call of every public function of numpy, numpy.linalg and numpy.fft, or why there is none.

A call is a piece of a program: statements and an expression, separated by ``;``. The names it may use are those of
``points.POINTS``; it is differentiated by each of them that it uses.
"""

from __future__ import annotations


def each(template: str, names: str) -> dict[str, str]:
    """The same call for several functions."""
    return {name: template.format(name) for name in names.split()}


NUMPY = {
    **each(
        "np.{}(x)",
        "abs absolute arccos arccosh arcsin arcsinh arctan arctanh acos asin asinh atan atanh cbrt conj conjugate cos "
        "cosh deg2rad degrees exp exp2 expm1 fabs i0 log log10 log1p log2 negative positive rad2deg radians reciprocal "
        "sin sinc sinh sqrt square tan tanh array asarray asanyarray asarray_chkfinite ascontiguousarray "
        "asfortranarray copy average cov cumprod cumsum cumulative_prod cumulative_sum diag diagflat diff ediff1d "
        "flip flipud gradient max amax mean median min amin modf nancumprod nancumsum nanmax nanmean nanmedian nanmin "
        "nanprod nanstd nansum nanvar nan_to_num poly polyder polyint prod ptp ravel real real_if_close sort squeeze "
        "std sum trapezoid transpose trim_zeros unique unique_all unique_counts unique_inverse unique_values unwrap "
        "vander var atleast_1d atleast_2d atleast_3d",
    ),
    "acosh": "np.acosh(x + 1)",
    "arccosh": "np.arccosh(x + 1)",
    **each(
        "np.{}(x, y)",
        "add arctan2 atan2 convolve corrcoef correlate divide dot float_power fmax fmin hypot inner kron logaddexp "
        "logaddexp2 maximum minimum multiply outer polyadd polymul polysub polyval pow power subtract true_divide "
        "vdot vecdot remainder mod fmod divmod copysign append",
    ),
    **each("np.{}([x, y])", "stack vstack hstack dstack column_stack row_stack concatenate concat block"),
    **each("np.{}(A)", "fliplr matrix_transpose permute_dims rot90 tril triu trace diagonal"),
    "cross": "np.cross(A, A[::-1] ** 2)",
    "expand_dims": "np.expand_dims(A, 1)",
    "unstack": "np.unstack(A, axis=1)",
    **each("np.{}(A, 0, 1)", "swapaxes moveaxis rollaxis"),
    **each("np.{}(A, 3, axis=1)", "split array_split"),
    "all": "np.all(x > 0.4)",
    "allclose": "np.allclose(x, y)",
    "angle": "np.angle(x + 1j * y)",
    "any": "np.any(x > 0.4)",
    "apply_along_axis": "np.apply_along_axis(lambda r: r.sum() * r, 1, A)",
    "apply_over_axes": "np.apply_over_axes(np.prod, A, [0, 1])",
    "arange": "np.arange(s, 4 * s + 2)",
    "argmax": "x[np.argmax(x)]",
    "argmin": "x[np.argmin(x)]",
    "argpartition": "x[np.argpartition(x, 2)]",
    "argsort": "x[np.argsort(x)]",
    "argwhere": "x[np.argwhere(x > 0.4)]",
    "around": "np.around(x, 1)",
    "array_equal": "np.array_equal(x, y)",
    "array_equiv": "np.array_equiv(x, y)",
    "astype": "np.astype(x, np.float64)",
    "bincount": "np.bincount([1, 0, 1, 2, 1], weights=x)",
    "bitwise_and": "np.bitwise_and(x > 0.4, y > 0.4)",
    "bitwise_or": "np.bitwise_or(x > 0.4, y > 0.4)",
    "bitwise_xor": "np.bitwise_xor(x > 0.4, y > 0.4)",
    **each("np.{}(x > 0.4)", "bitwise_invert bitwise_not invert logical_not count_nonzero flatnonzero nonzero"),
    **each("np.{}((9 * x).astype(int), 1)", "bitwise_left_shift bitwise_right_shift left_shift right_shift gcd lcm"),
    "bitwise_count": "np.bitwise_count((9 * x).astype(int))",
    "broadcast_arrays": "np.broadcast_arrays(A, s)",
    "broadcast_to": "np.broadcast_to(x, (2, 5))",
    **each("np.{}(7 * x)", "ceil fix floor rint round trunc"),
    "choose": "np.choose([1, 0, 1, 1, 0], [x, y])",
    "clip": "np.clip(x, 0.3, 0.6)",
    "compress": "np.compress([True, False, True], x)",
    "copyto": "out = np.zeros(5); np.copyto(out, x, where=[True, False, True, True, False]); out",
    "delete": "np.delete(x, 2)",
    "diag_indices_from": "G[np.diag_indices_from(G)]",
    "digitize": "np.digitize(x, [0.1, 0.4, 0.6])",
    "dsplit": "np.dsplit(A.reshape(1, 2, 3), 3)",
    "hsplit": "np.hsplit(A, 3)",
    "vsplit": "np.vsplit(A, 2)",
    "einsum": "np.einsum('ij,kj->ik', A, A)",
    "einsum_path": "np.einsum_path('ij,kj->ik', A, A)[0][0] == 'einsum_path'",
    "empty_like": "out = np.empty_like(x); out[:] = x; out",
    "zeros_like": "out = np.zeros_like(x); out[1:] = x[1:]; out",
    "ones_like": "np.ones_like(x) * x",
    "full_like": "np.full_like(x, s)",
    "full": "np.full(3, s)",
    "zeros": "out = np.zeros(3); out[1] = s; out",
    "ones": "out = np.ones(3); out[1] = s; out",
    "empty": "out = np.empty(1); out[0] = s; out",
    **each("np.{}(x, y)", "equal greater greater_equal less less_equal not_equal isclose logical_and logical_or"),
    "logical_xor": "np.logical_xor(x > 0.4, y > 0.4)",
    "extract": "np.extract(x > 0.4, x)",
    "fill_diagonal": "out = np.zeros((3, 3)); np.fill_diagonal(out, x[:3]); out",
    "floor_divide": "np.floor_divide(9 * x, y)",
    "frexp": "np.frexp(9 * x)",
    "fromfunction": "np.fromfunction(lambda i, j: x[i.astype(int)] * j, (5, 2))",
    "fromiter": "np.fromiter((v * v for v in x), float)",
    "frompyfunc": "np.frompyfunc(lambda v: v * v, 1, 1)(x).astype(float)",
    "geomspace": "np.geomspace(s, s + 2, 4)",
    "heaviside": "np.heaviside(x - 0.4, 0.5)",
    "histogram": "np.histogram(x, bins=3, weights=y)",
    "histogram2d": "np.histogram2d(x, y, bins=2, weights=x * y)",
    "histogram_bin_edges": "np.histogram_bin_edges(x, 4)",
    "histogramdd": "np.histogramdd((x, y), bins=(2, 3), weights=x)",
    "imag": "np.imag(x * (2 + 1j * y))",
    "insert": "np.insert(x, [1, 3], y[:2])",
    "interp": "np.interp(x, [0.0, 0.35, 1.0], y[:3])",
    "intersect1d": "np.intersect1d(x, np.concatenate((y, x[:2])))",
    **each("np.{}(x)", "isfinite isinf isnan isneginf isposinf isreal iscomplex signbit sign"),
    "isin": "np.isin(x, y)",
    "iscomplexobj": "np.iscomplexobj(x)",
    "isrealobj": "np.isrealobj(x)",
    "ix_": "G[np.ix_([0, 2], [1])]",
    "ldexp": "np.ldexp(x, [1, 2, -1, 0, 3])",
    "lexsort": "x[np.lexsort((x, np.floor(2 * y)))]",
    "linspace": "np.linspace(s, 2 * s, 4)",
    "logspace": "np.logspace(s, 2 * s, 4)",
    "matmul": "np.matmul(A, G)",
    "matvec": "np.matvec(A, x[:3])",
    "vecmat": "np.vecmat(x[:2], A)",
    "meshgrid": "np.meshgrid(x, y[:2])",
    "nanargmax": "x[np.nanargmax(x)]",
    "nanargmin": "x[np.nanargmin(x)]",
    "nanpercentile": "np.nanpercentile(x, 30)",
    "nanquantile": "np.nanquantile(x, [0.2, 0.7])",
    "nextafter": "np.nextafter(x, 2.0)",
    "pad": "np.pad(x, 2, mode='reflect')",
    "partition": "np.partition(x, 2)",
    "percentile": "np.percentile(x, 30)",
    "piecewise": "np.piecewise(x, [x < 0.4, x >= 0.4], [np.sin, lambda v: v ** 2])",
    "place": "out = x * 2; np.place(out, x > 0.4, y[:2]); out",
    "polydiv": "np.polydiv(x, y[:2])",
    "polyfit": "np.polyfit(x, y, 2)",
    "put": "out = x * 2; np.put(out, [0, 3], y[:2]); out",
    "put_along_axis": "out = A * 2; np.put_along_axis(out, np.array([[1], [0]]), x[:2, None], 1); out",
    "putmask": "out = x * 2; np.putmask(out, x > 0.4, y); out",
    "quantile": "np.quantile(x, 0.3)",
    "ravel_multi_index": "x[np.ravel_multi_index(([0, 1], [1, 1]), (2, 3))]",
    "repeat": "np.repeat(x, 2)",
    "require": "np.require(x, requirements='C')",
    "reshape": "np.reshape(A, (3, 2))",
    "resize": "np.resize(x, (2, 4))",
    "roll": "np.roll(x, 2)",
    "roots": "np.roots([1.0, -3.0 - s, 2.0])",
    "searchsorted": "np.searchsorted([0.1, 0.4, 0.6], x)",
    "select": "np.select([x < 0.3, x < 0.6], [x, x ** 2], -x)",
    "setdiff1d": "np.setdiff1d(x, y)",
    "setxor1d": "np.setxor1d(x, y)",
    "size": "np.size(x)",
    "ndim": "np.ndim(x)",
    "shape": "np.shape(x)",
    "sort_complex": "np.sort_complex(x)",
    "spacing": "np.spacing(x)",
    "take": "np.take(x, [0, 3, 3])",
    "take_along_axis": "np.take_along_axis(A, np.array([[2], [0]]), 1)",
    "tensordot": "np.tensordot(A, A, axes=([1], [1]))",
    "tile": "np.tile(x, (2, 2))",
    "tril_indices_from": "G[np.tril_indices_from(G)]",
    "triu_indices_from": "G[np.triu_indices_from(G)]",
    "union1d": "np.union1d(x, y)",
    "unravel_index": "A[np.unravel_index([1, 5], (2, 3))]",
    "where": "np.where(x > 0.4, x, y)",
    "vectorize": "np.vectorize(lambda v, w: v * w if v > 0.4 else w)(x, y)",
    "poly1d": "np.poly1d([1.0, 2.0, 3.0])(x)",
    "ndenumerate": "sum(v * i[0] for i, v in np.ndenumerate(x))",
    "r_": "np.r_[x, 0.0, y]",
    "c_": "np.c_[x, y]",
    "array_repr": "len(np.array_repr(x)) > 0",
    "array_str": "len(np.array_str(x)) > 0",
    "array2string": "len(np.array2string(x)) > 0",
    "common_type": "np.common_type(x) is np.float64",
    "result_type": "np.result_type(x, 1.0) == np.float64",
    "can_cast": "np.can_cast(x.dtype, np.float32)",
    "min_scalar_type": "np.min_scalar_type(x) == np.float64",
    "may_share_memory": "np.may_share_memory(x, y)",
    "shares_memory": "np.shares_memory(x, y)",
    "packbits": "np.packbits(x > 0.4)",
    "unpackbits": "np.unpackbits((9 * x).astype(np.uint8))",
}

# Refused with a clear error.
NUMPY_REFUSED = {
    "asmatrix": "np.asmatrix(A)",
    "bmat": "np.bmat([[A, A ** 2]])",
    "matrix": "np.matrix(A)",
    "nditer": "[v * v for v in np.nditer(x)]",
    "float64": "np.float64(s)",
    "broadcast": "np.stack([a * b for a, b in np.broadcast(x, y)])",
}

# Calls whose derivative is zero wherever it exists: integers, booleans, steps.
NUMPY_STEPS = {
    name
    for line in (
        "all allclose any array_equal array_equiv around bitwise_and bitwise_or bitwise_xor bitwise_invert",
        "bitwise_not invert logical_not count_nonzero flatnonzero nonzero bitwise_left_shift bitwise_right_shift",
        "left_shift right_shift gcd lcm bitwise_count ceil fix floor rint round trunc digitize einsum_path equal",
        "greater greater_equal less less_equal not_equal isclose logical_and logical_or logical_xor floor_divide",
        "heaviside isfinite isinf isnan isneginf isposinf isreal iscomplex signbit sign isin iscomplexobj isrealobj",
        "searchsorted size ndim shape spacing array_repr array_str array2string common_type result_type can_cast",
        "min_scalar_type may_share_memory shares_memory packbits unpackbits",
    )
    for name in line.split()
}

LINALG = {
    "cholesky": "np.linalg.cholesky(S)",
    "cond": "np.linalg.cond(G)",
    "cross": "np.linalg.cross(x[:3], y[:3])",
    "det": "np.linalg.det(G)",
    "diagonal": "np.linalg.diagonal(G)",
    "eig": "np.linalg.eig(G)[0]",
    "eigh": "np.linalg.eigh(S)",
    "eigvals": "np.linalg.eigvals(G)",
    "eigvalsh": "np.linalg.eigvalsh(S)",
    "inv": "np.linalg.inv(G)",
    "lstsq": "np.linalg.lstsq(T, x[:4])[0]",
    "matmul": "np.linalg.matmul(A, G)",
    "matrix_norm": "np.linalg.matrix_norm(A, ord='nuc')",
    "matrix_power": "np.linalg.matrix_power(G, -2)",
    "matrix_rank": "np.linalg.matrix_rank(A)",
    "matrix_transpose": "np.linalg.matrix_transpose(A)",
    "multi_dot": "np.linalg.multi_dot([A, G, T[:3]])",
    "norm": "np.linalg.norm(A)",
    "outer": "np.linalg.outer(x, y)",
    "pinv": "np.linalg.pinv(T)",
    "qr": "np.linalg.qr(T)",
    "slogdet": "np.linalg.slogdet(G)",
    "solve": "np.linalg.solve(G, x[:3])",
    "svd": "np.linalg.svd(T, full_matrices=False)",
    "svdvals": "np.linalg.svdvals(A)",
    "tensordot": "np.linalg.tensordot(A, A, axes=([1], [1]))",
    "tensorinv": "np.linalg.tensorinv(G.reshape(3, 3, 1), ind=1)",
    "tensorsolve": "np.linalg.tensorsolve(G.reshape(3, 1, 3), x[:3, None])",
    "trace": "np.linalg.trace(G)",
    "vecdot": "np.linalg.vecdot(A, A[::-1])",
    "vector_norm": "np.linalg.vector_norm(A, ord=3, axis=1)",
}
LINALG_STEPS = {"matrix_rank"}

FFT = {
    **each("np.fft.{}(x)", "fft ifft rfft irfft fftshift ifftshift"),
    **each("np.fft.{}(A)", "fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn"),
    "hfft": "np.fft.hfft(x + 1j * y)",
    "ihfft": "np.fft.ihfft(x)",
    "fftfreq": "np.fft.fftfreq(5, s)",
    "rfftfreq": "np.fft.rfftfreq(5, s)",
}

# Why there is nothing to differentiate.
NOT_ABOUT_NUMBERS = {
    "sets or shows options of NumPy": (
        "get_printoptions set_printoptions printoptions getbufsize setbufsize geterr seterr geterrcall seterrcall "
        "show_config show_runtime info get_include test errstate"
    ),
    "reads or writes files, text or memory": (
        "from_dlpack frombuffer fromfile fromregex fromstring genfromtxt load loadtxt save savetxt savez "
        "savez_compressed memmap"
    ),
    "writes one number as text": ("base_repr binary_repr format_float_positional format_float_scientific typename"),
    "dates": "busday_count busday_offset datetime_as_string datetime_data is_busday isnat busdaycalendar",
    "about dtypes and shapes, not about values": (
        "broadcast_shapes isdtype isfortran isscalar issubdtype iterable mintypecode promote_types finfo iinfo dtype"
    ),
    "takes sizes and makes constants": (
        "bartlett blackman hamming hanning kaiser eye identity indices tri diag_indices tril_indices triu_indices "
        "mask_indices mgrid ogrid index_exp s_ ndindex"
    ),
    "a class of arrays or an iterator inside NumPy": "ndarray flatiter nested_iters recarray record ufunc rec char "
    "strings",
    "a dtype of other numbers": (
        "bool bool_ bytes_ byte str_ void object_ character flexible datetime64 timedelta64 float32 generic number "
        "integer signedinteger unsignedinteger inexact floating complexfloating int_ intc intp int8 int16 int32 int64 "
        "long longlong short ubyte uint uintc uintp uint8 uint16 uint32 uint64 ulong ulonglong ushort half float16 "
        "single double longdouble float128 cdouble csingle clongdouble complex64 complex128 complex256"
    ),
    "a module or a constant": (
        "core exceptions f2py typing dtypes False_ True_ fft lib sctypeDict ScalarType random linalg typecodes nan "
        "testing ma inf little_endian newaxis e euler_gamma pi emath polynomial ctypeslib __version__ "
        "__array_namespace_info__"
    ),
}
