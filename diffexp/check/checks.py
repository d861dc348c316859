"""Proofs that a target agrees with its own coefficients, each with the number that was measured.

All that the package makes of a target (labels, beliefs, losses in any space) follows from its coefficients a, b, c
and from y = a x0 + b eps + c xi. A class can break this: by a coefficient that is not one finite number per image, or
by overriding `draw`, `gain` or `solve` with something that disagrees. Proofs are in float64 unless said otherwise, on
normal images of unit variance.
"""

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from diffexp.draws import Draws
from diffexp.invertibility import amplification
from diffexp.objective import Objective
from diffexp.schedule import Schedule
from diffexp.shapes import Images, PerImage
from diffexp.targets import X0, Coefficients, Epsilon, Target, V

Verdict = Literal["ok", "note", "FAILED"]

REFERENCES: Mapping[str, Target] = {"epsilon": Epsilon(), "x0": X0(), "v": V()}
"""What a target is measured beside, by conf name."""

_EXACT = 1e-9
"""Relative error in float64 that is rounding; any mistake is far larger."""
_SINGLE = 1e-3
"""Relative difference of a coefficient in float32 from the one in float64 that is rounding."""
_STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Proof:
    """What was tried and how it came out.

    Attributes:
        name: Of the property.
        verdict: "note" where it holds, but not everywhere or not in every precision.
        value: The number that was measured; None where it is not a matter of one.
        said: One sentence: what the number is, or what is wrong and what would be right.
    """

    name: str
    verdict: Verdict
    value: float | None
    said: str


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
        """What a network that knew x0 and eps would answer."""
        return self.target.draw(self.schedule, self.t, self.x0, self.eps, torch.zeros_like(self.xi))

    def at(self, worst: Tensor) -> str:
        """The time at which `worst`, one number per time, is largest."""
        t = self.t[worst.flatten().nan_to_num(torch.inf).argmax()].reshape(1, 1, 1, 1)
        return f"at t = {t.item():.4g} (log-SNR {self.schedule.log_snr(t).item():.3g})"


class WrongError(Exception):
    """Something that must hold of a target does not; its text is what to tell.

    Attributes:
        value: The number that was measured.
    """

    def __init__(self, said: str, value: float | None = None) -> None:
        super().__init__(said)
        self.value = value


def proved(name: str, proof: Callable[[Case], tuple[Verdict, float | None, str]], case: Case) -> Proof:
    """The proof's result, whatever the target raises on the way."""
    try:
        return Proof(name, *proof(case))
    except WrongError as wrong:
        return Proof(name, "FAILED", wrong.value, str(wrong))
    except Exception as error:
        return Proof(name, "FAILED", None, told(error))


def told(error: Exception) -> str:
    """The error in a line, with the line of the person's own code that it came from."""
    ours = Path(__file__).parents[1]
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if ours not in Path(frame.filename).parents]
    own = [frame for frame in own if "site-packages" not in frame.filename]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{str(error).strip().partition(chr(10))[0]}{where}"


def _refuse_far(case: Case, error: Tensor, scale: Tensor | float, what: str, tolerance: float = _EXACT) -> float:
    """The largest of `error` relative to `scale`, over all images.

    Raises:
        WrongError: It is more than rounding.
    """
    relative = (error.abs() / scale).nan_to_num(torch.inf).amax((1, 2, 3), keepdim=True)
    worst = relative.max().item()
    if worst > tolerance:
        raise WrongError(f"{what}: relative error {worst:.2g} {case.at(relative)}.", worst)
    return worst


def coefficients_are_numbers(case: Case) -> tuple[Verdict, float | None, str]:
    """Three finite numbers per image, in t's dtype, that depend on its own time alone."""
    parts: dict[torch.dtype, list[Tensor]] = {}
    for dtype in (torch.float64, torch.float32):
        t = case.t.to(dtype)
        found = cast(object, case.target.coefficients(case.schedule, t))
        if not isinstance(found, Coefficients):
            raise WrongError(f"coefficients gives a {type(found).__name__}: return Coefficients(a, b, c).")
        for name, part in zip("abc", found, strict=True):
            _refuse_coefficient(case, name, part, t)
        parts[dtype] = [part.double() for part in found]
    for place in (0, len(case.t) // 2):
        alone = case.target.coefficients(case.schedule, case.t[place : place + 1])
        for name, part, again in zip("abc", parts[torch.float64], alone, strict=True):
            if not torch.allclose(part[place], again, rtol=_EXACT, atol=0):
                raise WrongError(f"{name} at a time changes with the other times of the batch, or from call to call.")
    scale = torch.stack(parts[torch.float64]).abs().amax(0).clamp(min=torch.finfo(torch.float32).tiny)
    pairs = zip(parts[torch.float64], parts[torch.float32], strict=True)
    worst = torch.stack([(one - other).abs() / scale for one, other in pairs]).amax(0)
    value = worst.max().item()
    said = f"finite, one per image, in t's dtype; float32 and float64 agree to {value:.1g}"
    if value > _SINGLE:
        return "note", value, f"float32 and float64 differ by {value:.1g} of the largest of them {case.at(worst)}"
    return "ok", value, said


def _refuse_coefficient(case: Case, name: str, part: object, t: Tensor) -> None:
    if not isinstance(part, Tensor):
        raise WrongError(f"{name} is {part!r} and no tensor: for a constant write torch.full_like(t, {part!r}).")
    if part.shape != t.shape:
        raise WrongError(
            f"{name} has shape {tuple(part.shape)} for times of shape {tuple(t.shape)}: return one number per image, "
            "made from t, schedule.alpha(t) and the like; for a constant torch.full_like(t, 1.0)."
        )
    if part.dtype != t.dtype:
        raise WrongError(
            f"{name} is {part.dtype} for times in {t.dtype}: return t's own dtype; for a constant write "
            "torch.full_like(t, 1.0)."
        )
    if not part.isfinite().all():
        bad = ~part.isfinite()
        first = part[bad][0].item()
        kind = "" if t.dtype == torch.float64 else " in float32"
        raise WrongError(f"{name} is {first}{kind} {case.at(bad.double())}, a time that training uses.")


def one_dimensional_times_are_refused(case: Case) -> tuple[Verdict, float | None, str]:
    """A 1-D time is refused: where batch and width agree it would be broadcast along the width."""
    few = case.t[torch.linspace(0, len(case.t) - 1, 5).long()].flatten()
    target, schedule, x = case.target, case.schedule, case.x0[:1].expand(5, 2, 3, 5)
    calls: dict[str, Callable[[], object]] = {
        "coefficients": lambda: target.coefficients(schedule, few),
        "gain": lambda: target.gain(schedule, few),
        "draw": lambda: target.draw(schedule, few, x, x, x),
        "solve": lambda: target.solve(schedule, few, x, x),
    }
    if taken := [name for name, call in calls.items() if not _refuses(call)]:
        raise WrongError(
            f"{' and '.join(taken)} {'takes' if len(taken) == 1 else 'take'} a 1-D time, which would be broadcast "
            "along the images' width: call require_per_image(t) first (from diffexp.shapes)."
        )
    return "ok", None, "a 1-D time is refused"


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return True
    return False


def draw_is_linear(case: Case) -> tuple[Verdict, float | None, str]:
    """y = a x0 + b eps + c xi exactly, part by part and together; its mean and variance over xi."""
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
        raise WrongError("draw gives other labels for the same x0, eps and xi: take all that is random from xi.")
    worst = 0.0
    for what, (images, y) in wanted.items():
        drawn = target.draw(schedule, t, *images)
        if drawn.shape != y.shape:
            raise WrongError(f"draw makes shape {tuple(drawn.shape)} of images of shape {tuple(y.shape)}.")
        worst = max(worst, _refuse_far(case, drawn - y, scale, what))
    if (kept := target.draw(schedule, t, *(3 * [zero.float()])).dtype) != torch.float32:
        raise WrongError(f"draw makes {kept} of float32 images at float64 times: keep the dtype of x0.")
    off = _moments(case)
    chance = f"; over xi, its mean and variance within {off:.1f} standard errors" if (c != 0).any() else ""
    return "ok", worst, f"y = a x0 + b eps{' + c xi' if chance else ''} to {worst:.1g}{chance}"


def _moments(case: Case) -> float:
    """How many standard errors mean and variance of y over xi are off, at worst of some times.

    Raises:
        WrongError: More than chance allows.
    """
    some, pixels = torch.linspace(0, len(case.t) - 1, 9).long(), 64
    t, (a, b, c) = case.t[some], (part[some] for part in case.coefficients)
    xi = Draws(1).normal((len(t), 1, pixels, pixels), 0, "xi", torch.float64)
    image = torch.full_like(xi, 0.5)
    y = case.target.draw(case.schedule, t, image, image, xi)
    mean, variance = y.mean((1, 2, 3), keepdim=True), y.var((1, 2, 3), keepdim=True)
    rounding = _EXACT * (a.abs() + b.abs() + c.abs())
    off_mean = (mean - (a + b) / 2).abs() / (c.abs() / pixels + rounding)
    off_variance = (variance - c.square()).abs() / (c.square() * math.sqrt(2) / pixels + rounding.square())
    worst = torch.maximum(off_mean, off_variance).max().item()
    if not worst < _STANDARD_ERRORS:
        raise WrongError(f"over xi, mean or variance of draw are {worst:.1f} standard errors off a x0 + b eps and c^2.")
    return worst


def gain_is_the_determinant(case: Case) -> tuple[Verdict, float | None, str]:
    """gain = alpha b - sigma a."""
    (a, b, _), (alpha, sigma) = case.coefficients, case.schedule.amplitudes(case.t)
    off = case.target.gain(case.schedule, case.t) - (alpha * b - sigma * a)
    value = _refuse_far(case, off, (alpha * b).abs() + (sigma * a).abs(), "gain is not alpha b - sigma a")
    return "ok", value, f"gain = alpha b - sigma a to {value:.1g}"


def solving_undoes_drawing(case: Case) -> tuple[Verdict, float | None, str]:
    """solve(draw(x0, eps, xi=0)) gives x0 and eps back."""
    belief = case.target.solve(case.schedule, case.t, case.x_t, case.y)
    x0_scale, eps_scale = (1 + factor for factor in amplification(case.target, case.schedule, case.t))
    _refuse_far(case, belief.x0 - case.x0, x0_scale, "solve(draw(...)) does not give x0 back")
    _refuse_far(case, belief.eps - case.eps, eps_scale, "solve(draw(...)) does not give eps back")
    single = case.target.solve(case.schedule, case.t, case.x_t.float(), case.y.float())
    if {part.dtype for part in single} != {torch.float32}:
        raise WrongError("solve does not keep the dtype of float32 images at float64 times.")
    x0, eps = ((ours - true).abs().max().item() for ours, true in zip(belief, (case.x0, case.eps), strict=False))
    return "ok", max(x0, eps), f"draw, then solve: x0 comes back to {x0:.1g}, eps to {eps:.1g}"


def beliefs_agree(case: Case) -> tuple[Verdict, float | None, str]:
    """Any answer is read as beliefs that agree with x_t and with each other."""
    (a, b, _), (alpha, sigma) = case.coefficients, case.schedule.amplitudes(case.t)
    x0, eps, score = case.target.solve(case.schedule, case.t, case.x_t, torch.hypot(a, b) * case.xi)
    scale = (alpha * x0).abs() + (sigma * eps).abs() + case.x_t.abs()
    value = _refuse_far(case, alpha * x0 + sigma * eps - case.x_t, scale, "solve: alpha x0 + sigma eps is not x_t")
    other = _refuse_far(case, sigma * score + eps, eps.abs(), "solve: the score is not -eps / sigma")
    return "ok", max(value, other), f"for any answer, alpha x0 + sigma eps = x_t to {max(value, other):.1g}"


def losses_agree(case: Case) -> tuple[Verdict, float | None, str]:
    """The loss of an answer paid in another space is the squared error of what it means there."""
    worst = 0.0
    for name, space in REFERENCES.items():
        for target, paid_in, what in (
            (case.target, space, f"in {name}"),
            (space, case.target, f"of {name} in its own"),
        ):
            a, b, _ = target.coefficients(case.schedule, case.t)
            answer = torch.hypot(a, b) * case.xi
            zero = torch.zeros_like(case.xi)
            paid = Objective(target, paid_in).of_prediction(answer, case.schedule, case.x0, case.t, case.eps, zero)
            belief = target.solve(case.schedule, case.t, case.x_t, answer)
            meant = paid_in.draw(case.schedule, case.t, belief.x0 - case.x0, belief.eps - case.eps, zero)
            owed = meant.square().mean((1, 2, 3), keepdim=True)
            said = f"the loss {what} units, made from draw and gain, is not the squared error there"
            worst = max(worst, _refuse_far(case, paid - owed, owed, said, tolerance=1e3 * _EXACT))
    return "ok", worst, f"losses in {', '.join(REFERENCES)} and back are the squared errors there to {worst:.1g}"


ALGEBRA = {
    "draw": draw_is_linear,
    "gain": gain_is_the_determinant,
    "round trip": solving_undoes_drawing,
    "solve": beliefs_agree,
    "loss spaces": losses_agree,
}
