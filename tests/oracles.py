"""Float64 references by other means than the library's: SciPy, quadrature, brute force. Imports no vae_jax."""

import numpy as np
from scipy import integrate, special, stats


def gaussian_log_prob(x, mean, sigma):
    return stats.norm.logpdf(np.float64(x), np.float64(mean), np.float64(sigma))


def kl_to_standard_normal(mean, sigma):
    """KL[N(mean, sigma^2), N(0, 1)] of one dimension, by quadrature over +-12 sigma."""
    q = stats.norm(mean, sigma)
    integral, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)),
        mean - 12 * sigma,
        mean + 12 * sigma,
        points=[mean],
        limit=200,
    )
    return integral


def kl_to_gaussian(mean, sigma, centre, covariance):
    """KL[N(mean, diag(sigma^2)), N(centre, covariance)] of few dimensions, by a product of Gauss-Hermite rules."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    grid = np.stack(np.meshgrid(*[nodes] * len(mean), indexing="ij"), axis=-1).reshape(-1, len(mean))
    weight = np.prod(np.stack(np.meshgrid(*[weights] * len(mean), indexing="ij"), axis=-1), axis=-1).ravel()
    z = mean + sigma * grid
    ratio = stats.norm.logpdf(z, mean, sigma).sum(axis=1) - stats.multivariate_normal(centre, covariance).logpdf(z)
    return weight @ ratio / weight.sum()


def reconstruction_loss(likelihood, parameters, x, sigma=0.1):
    """Of each value by the formulas, for the decoder's output as it is; `parameters` hold the means first."""
    p, x = np.float64(parameters), np.float64(x)
    if likelihood in ("discretized_logistic", "logistic_mixture", "discretized_gaussian", "beta_binomial"):
        return -eight_bit_log_mass(likelihood, p, x)
    mean, rest = p[..., : x.shape[-1]], p[..., x.shape[-1] :]
    if likelihood == "squared_error":
        return (x - mean) ** 2
    if "gaussian" in likelihood:
        return -gaussian_log_prob(x, mean, np.exp(6 * np.tanh(rest / 6)) if rest.size else sigma)
    bernoulli = np.logaddexp(0, mean) - x * mean
    if likelihood == "bernoulli":
        return bernoulli
    a = np.abs(mean)
    with np.errstate(all="ignore"):
        log_normaliser = np.where(a < 1e-3, np.log(2) + a**2 / 12, np.log(a) - np.log(np.tanh(a / 2)))
    return bernoulli - log_normaliser


def eight_bit_log_mass(likelihood, parameters, x):
    """Of each value, a level k / 255; with three channels green depends on red, and blue on both."""
    p = parameters.reshape(*x.shape[:-1], -1, x.shape[-1])
    if likelihood == "beta_binomial":
        logit, concentration = 16 * np.tanh(p[..., 0, :] / 16), np.exp(7 * np.tanh(p[..., 1, :] / 7))
        a, b = concentration * special.expit(logit), concentration * special.expit(-logit)
        return stats.betabinom.logpmf(np.rint(255 * x), 255, a, b)
    number = 3 if likelihood == "logistic_mixture" else 1
    blocks = [p[..., i : i + number, :] for i in range(0, p.shape[-2], number)]
    location, scale = blocks[0].copy(), np.exp(8 * np.tanh(blocks[1] / 8))
    if x.shape[-1] == 3 and likelihood != "discretized_gaussian":
        red, green = x[..., None, 0] - 0.5, x[..., None, 1] - 0.5
        location[..., 1] += blocks[2][..., 0] * red
        location[..., 2] += blocks[2][..., 1] * red + blocks[2][..., 2] * green
    distribution = stats.norm if likelihood == "discretized_gaussian" else stats.logistic
    k, half = np.rint(255 * x)[..., None, :], 0.5 / 255
    distance = k / 255 - location
    # Both edges in the lower tail, where the distribution function does not round to 1.
    upper, lower = (half - np.abs(distance)) / scale, (-half - np.abs(distance)) / scale
    inside = distribution.logcdf(upper) + np.log(-np.expm1(distribution.logcdf(lower) - distribution.logcdf(upper)))
    black, white = distribution.logcdf((distance + half) / scale), distribution.logsf((distance - half) / scale)
    each = np.where(k == 0, black, np.where(k == 255, white, inside))
    if number == 1:
        return each[..., 0, :]
    return special.logsumexp(special.log_softmax(16 * np.tanh(blocks[-1] / 16), axis=-2) + each, axis=-2)


def continuous_bernoulli_log_normaliser(logits):
    """Log C with the density C p^x (1-p)^(1-x) integrating to 1 over [0, 1], by quadrature."""
    p = 1 / (1 + np.exp(-np.float64(logits)))
    integral, _ = integrate.quad(lambda x: p**x * (1 - p) ** (1 - x), 0, 1)
    return -np.log(integral)


def continuous_bernoulli_mean(logits):
    p = 1 / (1 + np.exp(-np.float64(logits)))
    weight, _ = integrate.quad(lambda x: p**x * (1 - p) ** (1 - x), 0, 1)
    moment, _ = integrate.quad(lambda x: x * p**x * (1 - p) ** (1 - x), 0, 1)
    return moment / weight


def linear_gaussian_log_evidence(x, weight, bias, sigma):
    """Log p(x) of x = weight z + bias + sigma noise with z ~ N(0, I): the exact marginal likelihood."""
    covariance = weight @ weight.T + sigma**2 * np.eye(len(bias))
    return stats.multivariate_normal(bias, covariance).logpdf(x)


def linear_gaussian_posterior(x, weight, bias, sigma):
    """Mean and covariance of p(z | x) for the same model."""
    precision = np.eye(weight.shape[1]) + weight.T @ weight / sigma**2
    covariance = np.linalg.inv(precision)
    return covariance @ weight.T @ (x - bias) / sigma**2, covariance


def importance_weighted_bound(log_weights):
    """Log of the mean weight over the first axis (Burda et al. 2015, equation 8)."""
    return special.logsumexp(np.float64(log_weights), axis=0) - np.log(len(log_weights))


def reflections(vectors):
    """The matrix of the reflections at the planes that are normal to these vectors, the first of them first."""
    turn = np.eye(len(vectors[0]))
    for v in np.float64(vectors):
        turn = (np.eye(len(v)) - 2 * np.outer(v, v) / (v @ v)) @ turn
    return turn


def adam(gradients, learning_rates, b1=0.9, b2=0.999, eps=1e-8):
    """Sum of Adam's updates (Kingma & Ba 2015, algorithm 1) for a list of gradients of one array."""
    first = second = total = 0.0
    for t, (g, rate) in enumerate(zip(gradients, learning_rates, strict=True), start=1):
        first = b1 * first + (1 - b1) * g
        second = b2 * second + (1 - b2) * g**2
        total -= rate * (first / (1 - b1**t)) / (np.sqrt(second / (1 - b2**t)) + eps)
    return total


def scaled(image, size, fit, fill):
    """An image [height, width, channels] filtered by Lanczos of three lobes to a size, cropped or padded."""

    def lanczos(x):
        return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)

    def weights(number, start, length, wanted):
        step = length / wanted
        centres = start + (np.arange(wanted) + 0.5) * step
        found = lanczos((np.arange(number) + 0.5 - centres[:, None]) / max(step, 1))
        return found / found.sum(1, keepdims=True)

    image, sides = np.float64(image), np.float64(image.shape[:2])
    shares = np.float64(size) / sides
    if fit == "crop":
        lengths = np.float64(size) / shares.max()
        starts, inner = (sides - lengths) / 2, size
    else:
        inner = np.rint(sides * shares.min()).astype(int)
        starts, lengths = (0, 0), sides
    down, across = (weights(int(n), *rest) for n, *rest in zip(sides, starts, lengths, inner, strict=True))
    inside = np.einsum("ah,bw,hwc->abc", down, across, image, optimize=True)
    found = np.full((*size, image.shape[2]), np.float64(fill))
    top, left = ((w - n) // 2 for w, n in zip(size, inner, strict=True))
    found[top : top + inner[0], left : left + inner[1]] = inside
    return found


def mixture_log_prob(z, means, sigmas, weights):
    """Log density of a mixture of diagonal Gaussians, from SciPy's normals."""
    each = [stats.norm.logpdf(np.float64(z), m, s).sum(axis=-1) for m, s in zip(means, sigmas, strict=True)]
    return special.logsumexp(np.stack(each), axis=0, b=np.float64(weights)[:, None])


def rareness(means, bins, smoothing):
    """The largest over the dimensions of 1 / (share of the codes in one's own bin + smoothing), each of sum 1."""
    every = []
    for column in np.float64(means).T:
        low, high = column.min(), column.max()
        places = [min(int((value - low) / (high - low) * bins), bins - 1) for value in column]
        own = np.array([1 / (places.count(place) / len(column) + smoothing) for place in places])
        every.append(own / own.sum())
    return np.max(every, axis=0)


def m2_terms(params, x, noise, known):
    """Reconstruction, KL and log q(y | x) of M2 for affine networks and Bernoulli pixels, by a sum over the classes.

    `noise` is that of each latent, `known` the place of each class among all, or -1 (Kingma et al. 2014, equations 6
    and 7, of which these are the parts).
    """

    def affine(name, values):
        layer = params[name]["Dense_0"]
        return values.reshape(len(x), -1) @ np.float64(layer["kernel"]) + np.float64(layer["bias"])

    x, classes = np.float64(x), len(params["condition"]["pictures"])
    log_q = special.log_softmax(affine("classifier", x), axis=1)
    losses, kls = np.zeros((2, len(x), classes))
    for y in range(classes):
        picture, numbers = (np.float64(params["condition"][name][y]) for name in ("pictures", "numbers"))
        seen = np.concatenate([x, np.broadcast_to(picture[..., None], (*x.shape[:3], 1))], axis=-1)
        mean, raw = np.split(affine("encoder", seen), 2, axis=1)
        sigma = np.exp(15 * np.tanh(raw / 15) / 2)
        z = np.concatenate([mean + sigma * noise, np.broadcast_to(numbers, (len(x), len(numbers)))], axis=1)
        losses[:, y] = reconstruction_loss("bernoulli", affine("decoder", z).reshape(x.shape), x).sum((1, 2, 3))
        kls[:, y] = 0.5 * (mean**2 + sigma**2 - 1 - np.log(sigma**2)).sum(axis=1)
    weights = np.exp(log_q)
    weights[known >= 0] = np.eye(classes)[known[known >= 0]]
    # That of the classes from equal probabilities.
    of_classes = special.xlogy(weights, weights * classes).sum(axis=1)
    return (weights * losses).sum(axis=1), (weights * kls).sum(axis=1) + of_classes, log_q


def minibatch_weighted(z, means, sigmas, images):
    """Log q(z), and log q(z_d) of each dimension, of the latent of each example of a batch (Chen et al. 2018, eq. 5).

    The sum of the posteriors of the batch at each latent, over the sizes of the batch and of the data set.
    """
    joint, dimensions = np.empty(len(z)), np.empty(z.shape)
    for i, latent in enumerate(np.float64(z)):
        each = stats.norm.logpdf(latent, np.float64(means), np.float64(sigmas))
        joint[i] = special.logsumexp(each.sum(axis=1)) - np.log(images * len(z))
        dimensions[i] = special.logsumexp(each, axis=0) - np.log(images * len(z))
    return joint, dimensions


def mutual_information(a, b):
    """Of two lists of values, in nats, by counting."""
    pairs, number = list(zip(a, b, strict=True)), len(a)
    return sum(
        pairs.count(pair) / number * np.log(pairs.count(pair) * number / (a.count(pair[0]) * b.count(pair[1])))
        for pair in set(pairs)
    )
