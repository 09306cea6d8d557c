"""Calls of what data are filtered, compared and modelled with: scipy.ndimage, signal, spatial.distance, stats."""

LINEAR_FILTERS = {
    "ndimage.affine_transform": "ndi.affine_transform(G, [[0.5, 0.0], [0.0, 1.0]])",
    "ndimage.map_coordinates": "ndi.map_coordinates(A, [[0.5, 1.0], [0.3, 0.2]], order=1)",
    "ndimage.rotate": "ndi.rotate(A, 30.0)",
    "ndimage.shift": "ndi.shift(A, (0.5, 0.2), mode='constant', cval=2.0)",
    "ndimage.spline_filter": "ndi.spline_filter(x)",
    "ndimage.spline_filter1d": "ndi.spline_filter1d(A, axis=0)",
    "ndimage.zoom": "ndi.zoom(A, 1.5)",
    "signal.czt": "sg.czt(x)",
    "signal.decimate": "sg.decimate(np.tile(x, 6), 2)",
    "signal.detrend": "sg.detrend(A, axis=0, type='constant')",
    "signal.filtfilt": "sg.filtfilt([0.5, 0.5], [1.0], np.tile(x, 3))",
    "signal.hilbert": "sg.hilbert(x)",
    "signal.lfilter": "sg.lfilter([1.0, 0.5], [1.0, -0.3], x)",
    "signal.lfilter(axis=)": "sg.lfilter([1.0, 0.5], [1.0, -0.3], A, axis=0)",
    "signal.resample": "sg.resample(A, 4, axis=1)",
    "signal.resample_poly": "sg.resample_poly(x, 2, 1)",
    "signal.savgol_filter": "sg.savgol_filter(x, 3, 1)",
    "signal.savgol_filter(deriv=)": "sg.savgol_filter(A, 3, 2, deriv=1, axis=1, mode='wrap')",
    "signal.sosfilt": "sg.sosfilt([[0.5, 0.5, 0.0, 1.0, -0.2, 0.0]], x)",
    "signal.upfirdn": "sg.upfirdn([1.0, 2.0], x, 2)",
}

DISTANCES = {
    **{
        f"cdist(metric={name!r})": f"sd.cdist(A, G + 1, {name!r})"
        for name in (
            "euclidean", "sqeuclidean", "cityblock", "chebyshev", "cosine", "correlation", "canberra", "braycurtis",
        )
    },
    "cdist(p=)": "sd.cdist(A, G + 1, 'minkowski', p=3)",
    "cdist(VI=)": "sd.cdist(A, G + 1, 'mahalanobis', VI=np.diag([1.0, 2.0, 3.0]))",
    "cdist(V=)": "sd.cdist(A, G + 1, 'seuclidean', V=[1.0, 2.0, 3.0])",
    "pdist": "sd.pdist(T)",
    "pdist(metric=)": "sd.pdist(T, 'cityblock')",
    "squareform": "sd.squareform(sd.pdist(T))",
    "squareform of a matrix": "sd.squareform(sd.squareform(x[:3]))",
    "mahalanobis": "sd.mahalanobis(x, y, np.diag([1.0, 2.0, 3.0, 4.0, 5.0]))",
    "minkowski": "sd.minkowski(x, y, 3)",
    "seuclidean": "sd.seuclidean(x, y, [1.0, 2.0, 3.0, 4.0, 5.0])",
    **{
        name: f"sd.{name}(x, y)"
        for name in (
            "euclidean", "sqeuclidean", "cityblock", "chebyshev", "cosine", "correlation", "canberra", "braycurtis",
        )
    },
}  # fmt: skip
DISTANCES_REFUSED = {"jensenshannon": "sd.jensenshannon(x, y)", "w=": "sd.euclidean(x, y, w=[1, 1, 1, 2, 1])"}

DISTRIBUTIONS = {
    "norm.pdf": "st.norm.pdf(x)",
    "norm.logpdf": "st.norm.logpdf(x, loc=y[0], scale=y[1])",
    "norm.cdf": "st.norm.cdf(x, s, 2.0)",
    "norm.logcdf": "st.norm.logcdf(x)",
    "norm.sf": "st.norm.sf(x)",
    "norm.logsf": "st.norm.logsf(x)",
    "norm.ppf": "st.norm.ppf(x)",
    "norm.isf": "st.norm.isf(x, scale=s)",
    "frozen": "st.norm(loc=y[0], scale=y[1]).logpdf(x)",
    "beta.pdf": "st.beta.pdf(x, 2.0 + s, 3.0)",
    "beta.ppf": "st.beta.ppf(x, 2.0, 3.0)",
    "cauchy.logpdf": "st.cauchy.logpdf(x, s)",
    "cauchy.ppf": "st.cauchy.ppf(x)",
    "chi2.cdf": "st.chi2.cdf(x, 3.0)",
    "expon.logpdf": "st.expon.logpdf(x, scale=s)",
    "gamma.logpdf": "st.gamma.logpdf(x, 2.0 + s, scale=1.5)",
    "gamma.cdf": "st.gamma.cdf(x, 2.0)",
    "gumbel_r.logpdf": "st.gumbel_r.logpdf(x, scale=s)",
    "invgamma.pdf": "st.invgamma.pdf(x, 2.0 + s)",
    "laplace.logpdf": "st.laplace.logpdf(x, scale=s)",
    "logistic.pdf": "st.logistic.pdf(x)",
    "lognorm.logpdf": "st.lognorm.logpdf(x, s)",
    "pareto.logpdf": "st.pareto.logpdf(x + 1.0, 2.0 + s)",
    "t.logpdf": "st.t.logpdf(x, 3.0 + s)",
    "uniform.pdf": "st.uniform.pdf(0.5, loc=0.0, scale=1.0 + s)",
    "weibull_min.logpdf": "st.weibull_min.logpdf(x, 1.5 + s)",
    "binom.pmf": "st.binom.pmf(2, 5, x)",
    "binom.logpmf": "st.binom.logpmf(2, 5, x)",
    "nbinom.logpmf": "st.nbinom.logpmf(3, 2.5, x)",
    "poisson.logpmf": "st.poisson.logpmf([0, 3], s)",
    "gamma.cdf by its shape": "st.gamma.cdf(0.5, 2.0 + x)",
    "poisson.pmf": "st.poisson.pmf(2, x)",
}
DISTRIBUTIONS_REFUSED = {
    "multivariate_normal": "st.multivariate_normal.pdf(x, np.zeros(5), np.eye(5))",
}
