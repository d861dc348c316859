"""What is measured: titles, directions and one line of explanation each.

`MEANINGS` adds words and a direction to the metrics that are known. A metric that is not in it is shown all the same,
under its own key; only a ranking needs a direction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diffexp.report.format import number, share
from diffexp.runs.metric_keys import CURRENCIES, is_band, parse_error_key

#: Every prediction error by the name that a figure gives it: in each currency, and in each its excess.
ERRORS = {unit: f"val/belief_{unit}" for unit in CURRENCIES} | {f"excess, {u}": f"val/excess_{u}" for u in CURRENCIES}


@dataclass(frozen=True)
class Meaning:
    """What a metric, or a family of metrics, measures.

    Attributes:
        text: In a phrase.
        higher_is_better: Its direction.
        of_samples: Whether it depends on the samples rather than on the held-out (x0, t, eps).
    """

    text: str
    higher_is_better: bool = False
    of_samples: bool = False


#: By whole key ("val/mine"), or by family: a currency of the prediction error, "excess", "bits", or the first part of a
#: sample metric's key.
MEANINGS = {
    "eps": Meaning(
        "squared error of the eps that the prediction implies, on the same held-out (x0, t, eps) for every run; "
        "predicting eps = 0 costs about 1"
    ),
    "x0": Meaning("the same error in x0: e^-lam times the eps-error at log-SNR lam, which emphasises high noise"),
    "v": Meaning("the same error in v: (1 + e^-lam) times the eps-error (where alpha^2 + sigma^2 = 1)"),
    "score": Meaning("the same error in the score: 1 / sigma^2 times the eps-error, which emphasises low noise"),
    "excess": Meaning(
        "squared distance from the optimal prediction, which is known for this data: the prediction error without "
        "its irreducible part; 0 is optimal"
    ),
    "bits": Meaning(
        "variational bound on held-out images in bits per dimension: of 8-bit values, or of a density on the scale "
        "[-1, 1] where the data is not quantised (then it may be negative)"
    ),
    "fid": Meaning("Frechet distance on the published Inception features", of_samples=True),
    "fd": Meaning("Frechet distance between features of samples and of real images", of_samples=True),
    "kid": Meaning(
        "kernel distance (MMD) on features; the estimate is unbiased, so it can be slightly negative", of_samples=True
    ),
    "precision": Meaning(
        "share of samples that lie among real images (higher is better)", higher_is_better=True, of_samples=True
    ),
    "recall": Meaning(
        "share of real images that lie among samples (higher is better)", higher_is_better=True, of_samples=True
    ),
    "density": Meaning(
        "how densely real images surround the samples (higher is better)", higher_is_better=True, of_samples=True
    ),
    "coverage": Meaning(
        "share of real images with a sample nearby (higher is better)", higher_is_better=True, of_samples=True
    ),
    "accuracy": Meaning("share classified correctly (higher is better)", higher_is_better=True, of_samples=True),
}

#: Losses in units of the target's own: never a column, because no two targets share them.
IN_OWN_UNITS = {
    "val/loss": "the loss on held-out images",
    "val/zero_loss": "that of predicting zero",
}

_SAMPLE_FAMILIES = [family for family, meaning in MEANINGS.items() if meaning.of_samples]

#: Last parts of keys that qualify the metric before them, such as "fd/classifier_1k/floor".
_COMPANIONS = ("floor", "floor_count", "unreliable", "accuracy", "chance", "stderr", "estimator_stderr", "optimum",
               "L_T", "kl", "L_0")  # fmt: skip


@dataclass(frozen=True)
class Metric:
    """A number of which a study has one column.

    Attributes:
        key: Its name in run.json, for example "fd/classifier_1k".
        declared: Whether higher is better, where a person has declared it; None: see `MEANINGS`.
    """

    key: str
    declared: bool | None = None

    @property
    def currency(self) -> str | None:
        """eps, x0, v or score, for a prediction error and for its excess over the optimum's."""
        error = parse_error_key(self.key)
        return error.currency if error and error.band is None else None

    @property
    def excess(self) -> bool:
        """Whether it is a prediction error's excess over the optimum's."""
        return self.currency is not None and self.key.startswith("val/excess_")

    @property
    def family(self) -> str:
        """Its key in `MEANINGS`; "" for a metric that is not known."""
        if self.key in MEANINGS:
            return self.key
        if self.excess:
            return "excess"
        if self.currency:
            return self.currency
        if self.key == "val/bits_per_dim" or self.key.startswith("bits_per_dim/"):
            return "bits"
        family, _, features = self.key.partition("/")
        return family if family in _SAMPLE_FAMILIES and features else ""

    @property
    def title(self) -> str:
        if self.currency:
            return f"{'excess' if self.excess else 'prediction'} error, {self.currency}"
        family, _, rest = self.key.partition("/")
        if self.family == "bits":
            return "bits/dim" if family == "val" else f"bits/dim, {rest}"
        if self.family in ("", self.key):
            return self.key
        return f"{family.upper() if len(family) <= 3 else family} {rest.replace('_', ' ')}"

    @property
    def meaning(self) -> str:
        return MEANINGS[self.family].text if self.family else ""

    @property
    def higher_is_better(self) -> bool | None:
        """None where no direction is known."""
        if self.declared is not None:
            return self.declared
        if self.key in IN_OWN_UNITS:
            return False
        return MEANINGS[self.family].higher_is_better if self.family else None

    @property
    def floor(self) -> str:
        """The key of the best that can be expected: what real images score, or the optimum where it is known."""
        return f"{self.key}/floor"

    @property
    def floor_count(self) -> str:
        """The key of how many real images the floor rests on, where they are fewer than the samples."""
        return f"{self.floor}_count"

    @property
    def unreliable(self) -> str:
        """The key that marks a metric of too few images for its features."""
        return f"{self.key}/unreliable"

    @property
    def of_samples(self) -> bool:
        """Whether it depends on the samples rather than on the held-out (x0, t, eps)."""
        return self.family in _SAMPLE_FAMILIES or not (self.family or self.key.startswith("val/"))

    @property
    def absolute(self) -> bool:
        """Whether only differences mean something: bits/dim has no zero that means perfection."""
        return self.family == "bits"

    def amount(self, gap: float) -> str:
        """A lead in words: "3.4 %", or "0.03 bits/dim"."""
        return f"{number(gap)} bits/dim" if self.absolute else share(gap)


def shown_metrics(metrics: Iterable[Metric]) -> list[Metric]:
    """Without the prediction errors whose excess over the optimum is among them: the same with less scatter."""
    metrics = list(metrics)
    better = {metric.currency for metric in metrics if metric.excess}
    return [metric for metric in metrics if metric.excess or metric.currency not in better or not metric.currency]


def comparable_metrics(keys: Iterable[str], directions: Mapping[str, bool] | None = None) -> list[Metric]:
    """The metrics among `keys`, known ones first.

    Left out are bands of log-SNR, what qualifies another metric (`fd/classifier_1k/floor`), what describes the
    training alone (`train/`, `time/`), and the losses in `IN_OWN_UNITS`.

    Args:
        keys: Those of all finished runs.
        directions: By key, whether higher is better, where `MEANINGS` does not say it or a person overrules it.
    """
    keys, declared = set(keys), directions or {}
    return sorted((Metric(key, declared.get(key)) for key in keys if _is_comparable(key, keys)), key=_order)


def _is_comparable(key: str, keys: set[str]) -> bool:
    return not (key in IN_OWN_UNITS or key.startswith(("train/", "time/")) or is_band(key) or _is_companion(key, keys))


def _is_companion(key: str, keys: set[str]) -> bool:
    """Whether the key qualifies a metric that is there or, if that was not finite, is known."""
    metric, _, last = key.rpartition("/")
    return last in _COMPANIONS and (metric in keys or bool(Metric(metric).family) or _is_companion(metric, keys))


def _order(metric: Metric) -> tuple[int, int, str]:
    if metric.currency:
        return 0, CURRENCIES.index(metric.currency), metric.key.replace("excess", "with_excess")
    if metric.family in _SAMPLE_FAMILIES:
        return 2, _SAMPLE_FAMILIES.index(metric.family), metric.key
    return 1 if metric.family else 3, int(metric.key != "val/bits_per_dim"), metric.key
