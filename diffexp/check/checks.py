"""Checks that a target agrees with its own coefficients, each with the error that was measured.

Everything derived from a target (labels, estimates, losses in any space) follows from its coefficients a, b, c and from
y = a x0 + b eps + c xi. A class can break this: by a coefficient that is not one finite number per image, or by
overriding `draw`, `gain` or `solve` inconsistently. Checks run in float64 unless noted, on normal images of unit
variance.
"""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from diffexp.draws import Draws
from diffexp.invertibility import amplification
from diffexp.objective import Objective
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import X0, Coefficients, Epsilon, Target, V

Verdict: TypeAlias = Literal["ok", "note", "FAILED"]

REFERENCES: Mapping[str, Target] = {"epsilon": Epsilon(), "x0": X0(), "v": V()}
"""What a target is compared with, by conf name."""

_EXACT = 1e-9
"""Relative error in float64 up to which a difference is rounding."""
_SINGLE = 1e-3
"""Relative difference of a coefficient in float32 from that in float64 up to which it is rounding."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: The property checked.
        verdict: "note" where it holds, but not everywhere or not in every precision.
        value: The error measured; None for a check without one.
        message: One sentence: what the value is, or what is wrong and how to fix it.
    """

    name: str
    verdict: Verdict
    value: float | None
    message: str


Outcome: TypeAlias = tuple[Verdict, float | None, str]
"""Verdict, value and message of a check that ran to its end."""


@dataclass(frozen=True)
class Case:
    """A target at increasing times at which it can be inverted, with images to try it on."""

    target: Target
    schedule: Schedule
    t: PerImage
    x0: Images = field(init=False)
    eps: Images = field(init=False)
    xi: Images = field(init=False)

    def __post_init__(self) -> None:
        for name in ("x0", "eps", "xi"):
            object.__setattr__(self, name, Draws(0).normal((len(self.t), 2, 3, 5), 0, name, torch.float64))

    @property
    def coefficients(self) -> tuple[PerImage, PerImage, PerImage]:
        a, b, c = self.target.coefficients(self.schedule, self.t)
        return a, b, c

    @property
    def x_t(self) -> Images:
        return self.schedule.noised(self.t, self.x0, self.eps)

    @property
    def y(self) -> Images:
        """The labels without label noise: what a perfect network predicts."""
        return self.target.draw(self.schedule, self.t, self.x0, self.eps, torch.zeros_like(self.xi))

    def at(self, worst: Tensor) -> str:
        """The time at which `worst`, one number per time, is largest."""
        t = self.t[worst.flatten().nan_to_num(torch.inf).argmax()].reshape(1, 1, 1, 1)
        return f"at t = {t.item():.4g} (log-SNR {self.schedule.log_snr(t).item():.3g})"


class CheckFailed(Exception):
    """A property that must hold does not; the text is the message to show.

    Attributes:
        value: The error measured.
    """

    def __init__(self, message: str, value: float | None = None) -> None:
        super().__init__(message)
        self.value = value


def run_check(name: str, check: Callable[[Case], Outcome], case: Case) -> CheckResult:
    """The check's result, whatever exception the target raises."""
    try:
        return CheckResult(name, *check(case))
    except CheckFailed as failed:
        return CheckResult(name, "FAILED", failed.value, str(failed))
    except Exception as error:
        return CheckResult(name, "FAILED", None, describe(error))


def describe(error: Exception) -> str:
    """The error in one line, with the innermost line of code outside this package and its dependencies."""
    package = Path(__file__).parents[1]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if package not in Path(frame.filename).parents and "site-packages" not in frame.filename
    ]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{str(error).strip().partition(chr(10))[0]}{where}"


def _require_small(case: Case, error: Tensor, scale: Tensor, what: str, tolerance: float = _EXACT) -> float:
    """The largest of `error` relative to `scale`, over all images.

    Raises:
        CheckFailed: It exceeds rounding.
    """
    relative = (error.abs() / scale).nan_to_num(torch.inf).amax((1, 2, 3), keepdim=True)
    worst = relative.max().item()
    if worst > tolerance:
        raise CheckFailed(f"{what}: relative error {worst:.2g} {case.at(relative)}.", worst)
    return worst


def coefficients_are_numbers(case: Case) -> Outcome:
    """Three finite numbers per image, in t's dtype, that depend on its own time alone."""
    parts: dict[torch.dtype, list[Tensor]] = {}
    for dtype in (torch.float64, torch.float32):
        t = case.t.to(dtype)
        found = cast(object, case.target.coefficients(case.schedule, t))
        if not isinstance(found, Coefficients):
            raise CheckFailed(f"coefficients returns a {type(found).__name__}: return Coefficients(a, b, c).")
        for name, part in zip("abc", found, strict=True):
            _validate_coefficient(case, name, part, t)
        parts[dtype] = [part.double() for part in found]
    for i in (0, len(case.t) // 2):
        alone = case.target.coefficients(case.schedule, case.t[i : i + 1])
        for name, part, again in zip("abc", parts[torch.float64], alone, strict=True):
            if not torch.allclose(part[i], again, rtol=_EXACT, atol=0):
                raise CheckFailed(f"{name} depends on the other times of the batch, or changes from call to call.")
    scale = torch.stack(parts[torch.float64]).abs().amax(0).clamp(min=torch.finfo(torch.float32).tiny)
    pairs = zip(parts[torch.float64], parts[torch.float32], strict=True)
    worst = torch.stack([(one - other).abs() / scale for one, other in pairs]).amax(0)
    value = worst.max().item()
    if value > _SINGLE:
        return "note", value, f"float32 and float64 differ by {value:.1g} of the largest coefficient {case.at(worst)}"
    return "ok", value, f"finite, one per image, in t's dtype; float32 and float64 agree to {value:.1g}"


def _validate_coefficient(case: Case, name: str, part: object, t: Tensor) -> None:
    if not isinstance(part, Tensor):
        raise CheckFailed(f"{name} is {part!r}, not a tensor: for a constant write torch.full_like(t, {part!r}).")
    if part.shape != t.shape:
        raise CheckFailed(
            f"{name} has shape {tuple(part.shape)} for times of shape {tuple(t.shape)}: return one number per image, "
            "made from t, schedule.alpha(t) and the like; for a constant torch.full_like(t, 1.0)."
        )
    if part.dtype != t.dtype:
        raise CheckFailed(
            f"{name} is {part.dtype} for times in {t.dtype}: return t's own dtype; for a constant write "
            "torch.full_like(t, 1.0)."
        )
    if not part.isfinite().all():
        bad = ~part.isfinite()
        first = part[bad][0].item()
        kind = "" if t.dtype == torch.float64 else " in float32"
        raise CheckFailed(f"{name} is {first}{kind} {case.at(bad.double())}, a time that training uses.")


def one_dimensional_times_raise(case: Case) -> Outcome:
    """A 1-D time raises: where batch and width agree it would be broadcast along the width."""
    few = case.t[torch.linspace(0, len(case.t) - 1, 5).long()].flatten()
    target, schedule, x = case.target, case.schedule, case.x0[:1].expand(5, 2, 3, 5)
    calls: dict[str, Callable[[], object]] = {
        "coefficients": lambda: target.coefficients(schedule, few),
        "gain": lambda: target.gain(schedule, few),
        "draw": lambda: target.draw(schedule, few, x, x, x),
        "solve": lambda: target.solve(schedule, few, x, x),
    }
    if unguarded := [name for name, call in calls.items() if not _raises(call)]:
        raise CheckFailed(
            f"{' and '.join(unguarded)} {'accepts' if len(unguarded) == 1 else 'accept'} a 1-D time, which would be "
            "broadcast along the images' width: call require_per_image(t) first (from diffexp.shapes)."
        )
    return "ok", None, "a 1-D time raises"


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return True
    return False


def draw_is_linear(case: Case) -> Outcome:
    """y = a x0 + b eps + c xi exactly, part by part and together."""
    target, schedule, t, zero = case.target, case.schedule, case.t, torch.zeros_like(case.x0)
    a, b, c = case.coefficients
    scale = a.abs() + b.abs() + c.abs()
    wanted = {
        "draw(x0, 0, 0) is not a x0": ((case.x0, zero, zero), a * case.x0),
        "draw(0, eps, 0) is not b eps": ((zero, case.eps, zero), b * case.eps),
        "draw(0, 0, xi) is not c xi": ((zero, zero, case.xi), c * case.xi),
        "draw(x0, eps, xi) is not a x0 + b eps + c xi": (
            (case.x0, case.eps, case.xi),
            a * case.x0 + b * case.eps + c * case.xi,
        ),
    }
    once, again = (target.draw(schedule, t, case.x0, case.eps, case.xi) for _ in range(2))
    if not torch.equal(once, again):
        raise CheckFailed("draw returns other labels for the same x0, eps and xi: derive all randomness from xi.")
    worst = 0.0
    for what, (images, y) in wanted.items():
        drawn = target.draw(schedule, t, *images)
        if drawn.shape != y.shape:
            raise CheckFailed(f"draw returns shape {tuple(drawn.shape)} for images of shape {tuple(y.shape)}.")
        worst = max(worst, _require_small(case, drawn - y, scale, what))
    if (dtype := target.draw(schedule, t, *(3 * [zero.float()])).dtype) != torch.float32:
        raise CheckFailed(f"draw returns {dtype} for float32 images at float64 times: keep the dtype of x0.")
    noise = " + c xi" if (c != 0).any() else ""
    return "ok", worst, f"y = a x0 + b eps{noise} to {worst:.1g}"


def gain_is_the_determinant(case: Case) -> Outcome:
    """gain = alpha b - sigma a."""
    (a, b, _), (alpha, sigma) = case.coefficients, case.schedule.amplitudes(case.t)
    off = case.target.gain(case.schedule, case.t) - (alpha * b - sigma * a)
    value = _require_small(case, off, (alpha * b).abs() + (sigma * a).abs(), "gain is not alpha b - sigma a")
    return "ok", value, f"gain = alpha b - sigma a to {value:.1g}"


def solve_inverts_draw(case: Case) -> Outcome:
    """solve(draw(x0, eps, xi=0)) returns x0 and eps."""
    estimate = case.target.solve(case.schedule, case.t, case.x_t, case.y)
    x0_scale, eps_scale = (1 + factor for factor in amplification(case.target, case.schedule, case.t))
    _require_small(case, estimate.x0 - case.x0, x0_scale, "solve(draw(...)) does not return x0")
    _require_small(case, estimate.eps - case.eps, eps_scale, "solve(draw(...)) does not return eps")
    single = case.target.solve(case.schedule, case.t, case.x_t.float(), case.y.float())
    if {part.dtype for part in single} != {torch.float32}:
        raise CheckFailed("solve does not keep the dtype of float32 images at float64 times.")
    x0 = (estimate.x0 - case.x0).abs().max().item()
    eps = (estimate.eps - case.eps).abs().max().item()
    return "ok", max(x0, eps), f"solve inverts draw: x0 to {x0:.1g}, eps to {eps:.1g}"


def estimates_agree(case: Case) -> Outcome:
    """Any prediction is converted to estimates that agree with x_t and with each other."""
    (a, b, _), (alpha, sigma) = case.coefficients, case.schedule.amplitudes(case.t)
    x0, eps, score = case.target.solve(case.schedule, case.t, case.x_t, torch.hypot(a, b) * case.xi)
    scale = (alpha * x0).abs() + (sigma * eps).abs() + case.x_t.abs()
    value = _require_small(case, alpha * x0 + sigma * eps - case.x_t, scale, "solve: alpha x0 + sigma eps is not x_t")
    score_error = _require_small(case, sigma * score + eps, eps.abs(), "solve: the score is not -eps / sigma")
    return (
        "ok",
        max(value, score_error),
        f"for any prediction, alpha x0 + sigma eps = x_t to {max(value, score_error):.1g}",
    )


def losses_agree(case: Case) -> Outcome:
    """The loss computed in another space is the squared error of the prediction converted to it."""
    worst, zero = 0.0, torch.zeros_like(case.xi)
    pairs = [(case.target, space, f"in {name}") for name, space in REFERENCES.items()]
    pairs += [(target, case.target, f"of {name} in this target's") for name, target in REFERENCES.items()]
    for target, space, what in pairs:
        a, b, _ = target.coefficients(case.schedule, case.t)
        prediction = torch.hypot(a, b) * case.xi
        loss = Objective(target, space).of_prediction(prediction, case.schedule, case.x0, case.t, case.eps, zero)
        estimate = target.solve(case.schedule, case.t, case.x_t, prediction)
        error = space.draw(case.schedule, case.t, estimate.x0 - case.x0, estimate.eps - case.eps, zero)
        expected = error.square().mean((1, 2, 3), keepdim=True)
        message = f"the loss {what} space, from draw and gain, is not the squared error there"
        worst = max(worst, _require_small(case, loss - expected, expected, message, tolerance=1e3 * _EXACT))
    return "ok", worst, f"losses in {', '.join(REFERENCES)} and back equal the squared errors there to {worst:.1g}"


ALGEBRA: Mapping[str, Callable[[Case], Outcome]] = {
    "draw": draw_is_linear,
    "gain": gain_is_the_determinant,
    "round trip": solve_inverts_draw,
    "solve": estimates_agree,
    "loss spaces": losses_agree,
}
"""The checks that need an invertible target, in the order in which they run."""
