"""Several choices of one group: `metric=[classifier,inception]`."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict

from diffexp.errors import UserError


def metric_names(metric: Mapping[str, Any]) -> list[str]:
    """What a `metric` node measures, such as ["classifier", "inception"]: its features, and metrics beside them."""
    features = cast(Mapping[str, Any], metric.get("features") or {})
    return ([] if "_target_" in features else list(features)) + list(cast(Mapping[str, Any], metric.get("also") or {}))


def record_several(config: DictConfig, chosen: Mapping[str, Sequence[str]]) -> None:
    """Add the names of several choices to Hydra's own record, which leaves them out.

    Args:
        config: What was composed, Hydra's node included.
        chosen: The files that were chosen of each group.

    Raises:
        UserError: Metrics were chosen that replace each other.
    """
    choices = config.hydra.runtime.choices
    several = {group: names for group, names in chosen.items() if group not in choices and names}
    if len(names := list(dict.fromkeys(several.get("metric", [])))) > 1:
        node = cast(Mapping[str, Any], OmegaConf.to_container(config.metric))
        if len(metric_names(node)) < len(names):
            raise UserError(
                f"metric=[{','.join(names)}]: these cannot be combined, for one file puts its class in the place of "
                "another's. Choose one of them; or let the file of a metric of your own name its class under "
                "also.NAME of a diffexp.metrics.samples.SampleMetric."
            )
    with open_dict(choices):
        choices.update({group: ",".join(dict.fromkeys(names)) for group, names in several.items()})
