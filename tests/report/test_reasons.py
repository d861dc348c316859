"""Why the rows of a study differ, in sentences made of their own numbers."""

from pathlib import Path

import pytest
from synthetic import BANDS, change_record, write_run

from diffexp.report.reasons import reasons, where_totals_lie
from diffexp.report.summary import summarise

CENTRES = [low + 1.0 for low in BANDS]
EVEN = [0.05] * 20


def explanation(tmp_path: Path, label: str, **record: object) -> str:
    for target in ("epsilon", label):
        write_run(tmp_path, "s", target, seed=0, images=False)
    (path,) = (tmp_path / "s").glob(f"{label}-*/seed=0")
    flat = {"log_snr": CENTRES, "weight": [1.0] * 20, "times": EVEN}
    change_record(path / "run.json", **{"effective_weight": flat, "final": bands(0.1), **record})
    (base,) = (tmp_path / "s").glob("epsilon-*/seed=0")
    change_record(base / "run.json", effective_weight=flat, final=bands(0.1))
    return " ".join(reasons(summarise(tmp_path / "s")).get(label, []))


def bands(error: float, **excess: float) -> dict[str, float]:
    final = {f"val/belief_eps/lam_{low}_{low + 2}": error for low in BANDS}
    final |= {f"val/belief_eps/lam_{key.replace('m', '-')}": error + extra for key, extra in excess.items()}
    return final | {"val/belief_eps": sum(final.values()) / 20}


def test_a_row_like_the_baseline_needs_no_explanation(tmp_path: Path) -> None:
    assert explanation(tmp_path, "v") == ""


def test_label_noise_is_given_as_a_share_of_the_loss(tmp_path: Path) -> None:
    found = explanation(tmp_path, "step_noise", zero_loss=0.01005, label_noise=0.0099)
    assert "98.5 % of the zero-prediction baseline's loss (0.01005) is irreducible label noise" in found
    assert "cannot fall below 0.0099" in found
    assert "at most 1.5 %" in found


def test_a_lopsided_weight_is_located(tmp_path: Path) -> None:
    weight = [0.0] * 16 + [5.0] * 4  # all on log-SNR 12 to 20, a fifth of the times
    found = explanation(tmp_path, "score", effective_weight={"log_snr": CENTRES, "weight": weight, "times": EVEN})
    assert "100 % of its weight on low noise (log-SNR above 4), where 40 % of the times are" in found


def test_an_excess_is_located_in_its_bands(tmp_path: Path) -> None:
    found = explanation(tmp_path, "x0", final=bands(0.1, **{"6_8": 0.9, "8_10": 0.8, "m2_0": 0.05}))
    assert "Its eps-error is larger than that of epsilon" in found
    assert "97 % of the difference arises at log-SNR 6 to 10" in found


def test_a_total_is_located_where_its_unit_counts(tmp_path: Path) -> None:
    final = bands(0.1)
    final |= {f"val/belief_x0/lam_{low}_{low + 2}": 2.0 ** -(low + 20) for low in BANDS}  # a quarter of it a band
    explanation(tmp_path, "x0")
    (base,) = (tmp_path / "s").glob("epsilon-*/seed=0")
    change_record(base / "run.json", final=final)
    eps, x0 = where_totals_lie(summarise(tmp_path / "s"))
    assert eps.startswith("eps-error (all noise levels count alike): 75 % of epsilon's total lies at")
    assert eps.endswith("where 75 % of the times are.")
    assert x0 == (
        "x0-error (e^-lam multiplies the eps-error): 75 % of epsilon's total lies at log-SNR below -18, where 5 % of "
        "the times are."
    )


@pytest.mark.parametrize("broken", ["text", {"log_snr": "a"}, {"log_snr": [1], "weight": [None], "times": [1]}, None])
def test_a_damaged_record_costs_the_explanation_alone(tmp_path: Path, broken: object) -> None:
    assert explanation(tmp_path, "v", effective_weight=broken, zero_loss="x", label_noise=None) == ""
