"""The results of `diffexp explain` as sentences and as a table."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffexp.report.format import listed, number
from diffexp.report.format import precise_percent as percent
from diffexp.runs.metric_keys import NOISE_REGIONS

if TYPE_CHECKING:
    from diffexp.explain.losses import Explained, Explanation

PREDICTABLE = "Why can noise be predicted at all?"
FASTER = "Why does the loss of some targets fall faster?"

_WIDEST = 8.0  # nats, of a noise region that is unbounded
_LINEAR_OVERFITS = 10  # images per dimension, below which the linear denoiser overfits its own images
_SMALL = 0.1


def question(found: "Explanation", settings: Mapping[str, str]) -> str:
    """The title."""
    return f"How well can {listed(list(found.targets))} be predicted on {settings['data']}?"


def setting(found: "Explanation", settings: Mapping[str, str]) -> str:
    """The settings, in one line."""
    low, high = found.time_range
    chosen = ", ".join(f"{key} {value}" for key, value in settings.items())
    return f"{chosen}, t from {low:g} to {high:g}; {found.dimension:,} dimensions, mean square {number(found.power)}"


def is_plain(settings: Mapping[str, str]) -> bool:
    """Whether the loss is each target's own squared error, without weighting."""
    return settings["space"] == "native" and settings["weighting"] == "uniform"


def optimum_of(found: "Explanation") -> str:
    """Whose optimum it is, for headings."""
    return "optimum" if found.images is None else f"optimum of these {found.images:,} images"


def about_the_optimum(found: "Explanation") -> str:
    """What the optimum bounds, and what it does not."""
    if found.images is None:
        return "The density of this data is known, so the optimum is the population's: no network can do better."
    n = f"{found.images:,}"
    text = (
        f"The optimum is that of these {n} training images: the loss of a network that has memorised them. It is a "
        "floor of the training loss; the optimum of the population that they were drawn from lies higher. "
    )
    if found.r2_linear is None:
        return f"{text}The best linear denoiser is left out: {found.dimension:,} dimensions are too many for it."
    text += (
        "The best linear denoiser uses the mean and the covariance of these images alone, so its loss can certainly be "
        "reached. The population's optimum lies between the two"
    )
    if found.images < _LINEAR_OVERFITS * found.dimension:
        return (
            f"{text}; but {n} images are few for a covariance in {found.dimension:,} dimensions, so the linear "
            "denoiser also overfits them."
        )
    return f"{text} (the linear one is estimated from these {n} images)."


def predictable(found: "Explanation") -> list[str]:
    """How much of the noise can be predicted from x_t, from high noise to low."""
    sentences = [
        "The noise eps is drawn independently of the image and of t, but the network's input x_t = alpha x0 + sigma "
        "eps contains it. Knowledge of images is knowledge of the noise: what does not look like an image is noise.",
    ]
    shown: set[int] = set()
    for name, (low, high) in NOISE_REGIONS.items():
        centre = (max(low, -_WIDEST) + min(high, _WIDEST)) / 2
        at = min(range(len(found.log_snr)), key=lambda i: abs(found.log_snr[i] - centre))
        if at in shown:
            continue
        shown.add(at)
        noise = math.exp(-found.log_snr[at] / 2)
        place = f"At {name} noise (t = {found.times[at]:.3g}, sigma / alpha = {noise:.3g})"
        parts = [f"the best multiple of x_t explains {percent(found.r2_multiple[at])} of eps"]
        if found.r2_linear is not None:
            parts.append(f"the best linear denoiser {percent(found.r2_linear[at])}")
        error = _error(100 * found.r2[at], 100 * found.r2_stderr[at])
        parts.append(f"the {optimum_of(found)} {percent(found.r2[at])}{error}")
        why = ": x_t / sigma is almost the noise itself" if name == "high" and noise > math.e**2 else ""
        sentences.append(f"{place} {listed(parts)}{why}.")
    return sentences


def of_target(name: str, found: "Explanation", plain: bool) -> list[str]:
    """Where its loss starts, how far it can fall and by what, and its weight on noise levels.

    Args:
        name: The target.
        found: All.
        plain: The loss is the target's own squared error, without weighting.
    """
    explained = found.targets[name]
    mean = explained.mean
    fall = percent((mean.zero - mean.optimum) / mean.zero)
    least = f"{number(mean.optimum)}{_error(mean.optimum, mean.stderr)}"
    images = "" if found.images is None else f" on these {found.images:,} images"
    text = f"Its loss starts at {number(mean.zero)}, that of predicting zero, and cannot fall below {least}{images}"
    if mean.label_noise > mean.zero / 2:
        text += (
            f": {percent(mean.label_noise / mean.zero)} of the first is irreducible label noise, and all that can be "
            f"learned lowers it by {fall}. A network that has learned nothing looks converged."
        )
    elif mean.label_noise > 0:
        text += (
            f", a fall of {fall}. Of that floor {percent(mean.label_noise / mean.optimum)} is irreducible label noise."
        )
    else:
        text += f", a fall of {fall}."
    return [text, _reductions(explained), *_smallness(explained, plain), _weight(explained, found)]


def faster(found: "Explanation", plain: bool) -> list[str]:
    """Why loss curves of different targets cannot be compared; arguments as in `of_target`."""
    starts = [f"{name} {number(explained.mean.zero)}" for name, explained in found.targets.items()]
    sentences = [
        f"The zero-prediction losses are {listed(starts)}. They measure the scale of a target"
        f"{'' if plain else ' and its weighting'}, not how well it is predicted: a loss curve that lies lower, or "
        "flattens sooner, does not mean faster learning."
    ]
    if plain:
        name, least = min(((n, x.mean.zero) for n, x in found.targets.items()), key=lambda pair: pair[1])
        sentences.append(
            "A network whose initial output has variance q starts at q above the zero-prediction loss, and loses q by "
            f"learning to output zero. For {name} with q = 1 that is {percent(1 / (1 + least))} of the first loss: the "
            "steep part of its curve, and none of it is denoising. (Networks here start at q = 0: their last layer is "
            "zero.)"
        )
    beyond = [f"{name} {percent(_beyond(x))}" for name, x in found.targets.items()]
    sentences.append(
        f"Of the fall from there to the optimum, scaling x_t leaves {listed(beyond)}. Only this part requires "
        "knowledge of images."
    )
    if len(found.targets) > 1:
        sentences.append(
            "Given x_t, all these optimal predictions follow from the same E[eps | x_t]: no target carries more "
            "information than another. The targets differ in scale, in the weight of their loss on noise levels, and "
            "in label noise, which changes no expected gradient and adds variance to each. Compare networks by their "
            "error in eps at equal noise (val/belief_eps), not by their losses."
        )
    return sentences


def table(found: "Explanation") -> tuple[list[str], list[list[str]]]:
    """(headings, one row for each target), of expected losses and of shares."""
    linear = found.r2_linear is not None
    head = ["target", "zero prediction", "best multiple of x_t", *(["best linear"] if linear else []),
            optimum_of(found), "label noise", "learnable", "of it beyond scaling x_t"]  # fmt: skip
    rows: list[list[str]] = []
    for name, explained in found.targets.items():
        mean = explained.mean
        losses = [mean.zero, mean.multiple, *([mean.linear] if mean.linear is not None else [])]
        optimum = f"{number(mean.optimum)}{_error(mean.optimum, mean.stderr)}"
        shares = [percent(1 - mean.optimum / mean.zero), percent(_beyond(explained))]
        rows.append([name, *map(number, losses), optimum, number(mean.label_noise), *shares])
    return head, rows


def legend(found: "Explanation") -> str:
    """How to read the table."""
    error = " +-: standard error of the Monte Carlo estimate." if any(found.r2_stderr) else ""
    return (
        "Expected training loss per dimension. Label noise: the part of each that is irreducible noise in the target. "
        f"Learnable: from predicting zero to the {optimum_of(found)}.{error}"
    )


def _reductions(explained: "Explained") -> str:
    """The part of the fall that each prediction reaches."""
    mean = explained.mean
    fall = mean.zero - mean.optimum
    if fall <= 1e-9 * mean.zero:
        return "There is nothing to learn: predicting zero is optimal."
    text = (
        f"Scaling x_t lowers it to {number(mean.multiple)}, {percent((mean.zero - mean.multiple) / fall)} of that fall"
    )
    if mean.linear is not None:
        text += f", the best linear denoiser to {number(mean.linear)}, {percent((mean.zero - mean.linear) / fall)}"
    return f"{text}."


def _smallness(explained: "Explained", plain: bool) -> list[str]:
    zero = explained.mean.zero
    if not plain or zero > _SMALL:
        return []
    return [f"The numbers are small because the target is: its root mean square is {math.sqrt(zero):.2g}."]


def _weight(explained: "Explained", found: "Explanation") -> str:
    shares = [f"{percent(share)} at {name}" for name, share in zip(NOISE_REGIONS, explained.shares, strict=True)]
    text = f"Its weight on errors in eps is distributed {listed(shares)} noise"
    if all(math.isclose(a, b, abs_tol=2e-3) for a, b in zip(explained.shares, found.time_shares, strict=True)):
        return f"{text}, as the training times are."
    return f"{text}; the training times {listed([percent(share) for share in found.time_shares])}."


def _beyond(explained: "Explained") -> float:
    """The share of the fall that is left after scaling x_t."""
    mean = explained.mean
    fall = mean.zero - mean.optimum
    return (mean.multiple - mean.optimum) / fall if fall > 1e-9 * mean.zero else 0.0


def _error(value: float, stderr: float) -> str:
    """ " +-0.0001" where it would show in four digits."""
    return f" +-{stderr:.1g}" if stderr > 1e-4 * abs(value) else ""
