"""Inception's features, as torch-fidelity computes them: the ones a FID is made of.

torch-fidelity's extractor takes 8-bit RGB images, resizes them to 299 x 299 as TensorFlow 1 did (bilinear,
corners not aligned, no antialiasing: the resize of the published FID) and gives the 2048 pooled features.
"""

import hashlib
import importlib
import io
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn as nn

from diffexp.data import Data
from diffexp.data.pixels import Pixels, to_uint8
from diffexp.errors import UserError
from diffexp.metrics.cached import fingerprint, source_fingerprint
from diffexp.metrics.features import FeatureRecipe, Features, FeatureVectors
from diffexp.shapes import Images

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d"
HOME = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/" + WEIGHTS


class InceptionFeatures(Features):
    """The 2048 pooled features of an Inception network; grey images are shown as RGB.

    Attributes:
        weights: First 8 hex digits of the sha256 of the weights' file.
    """

    batch = 100

    def __init__(self, network: nn.Module, sha256: str, device: torch.device) -> None:
        self.weights = sha256[:8]
        published = self.weights == PUBLISHED
        super().__init__(
            name="inception" if published else f"inception_{self.weights}",
            frechet_name="fid" if published else "fd",
            dimension=2048,
            made_of=fingerprint(sha256, source_fingerprint(__file__)),
        )
        self._network, self._device = network.eval().requires_grad_(False).to(device), device

    def _extract(self, images: Images | Pixels) -> FeatureVectors:
        pixels = to_uint8(images) if images.is_floating_point() else images
        return self._network(pixels.to(self._device).expand(-1, 3, -1, -1))[0]


@dataclass(frozen=True)
class InceptionV3(FeatureRecipe):
    """Inception with weights from a file; only the published weights make a FID.

    Attributes:
        weights: The file; its name ends in the first digits of its sha256, as torch hub's do. None is the
            published file in torch hub's checkpoint folder.
    """

    weights: str | Path | None = None

    def validate(self, data: Data) -> None:
        """Raise for images that are neither grey nor RGB, and for missing weights."""
        if data.image_shape[0] not in (1, 3):
            raise UserError(
                f"metric=inception on data={data.name}: Inception sees RGB images (or grey ones, repeated), "
                f"these have {data.image_shape[0]} channels. Take metric=classifier or metric=none."
            )
        find_weights(self.weights)

    def build(self, data: Data, cache: Path, device: torch.device) -> InceptionFeatures:
        """The network's features; see `FeatureRecipe`.

        Raises:
            UserError: There is no such weights file.
            ImportError: torch-fidelity or torchvision is missing.
            UserError: The file's content does not match its name, or the images are neither grey nor RGB.
        """
        self.validate(data)
        path = find_weights(self.weights)
        sha256 = checked_sha256(path)
        return InceptionFeatures(_load(path), sha256, device)


def find_weights(weights: str | Path | None) -> Path:
    """The weights file: the one named, or the published one in torch hub's checkpoint folder.

    Raises:
        UserError: It is not there.
    """
    path = Path(weights).expanduser() if weights else Path(torch.hub.get_dir(), "checkpoints", WEIGHTS)
    if not path.is_file():
        raise UserError(
            f"metric=inception: there is no weights file {path}. Put {WEIGHTS} ({HOME}) there, or name the "
            "file with metric.features.inception.weights=PATH; metric=classifier needs no file."
        )
    return path


def checked_sha256(path: Path) -> str:
    """The file's sha256, in hex, once it matches the file's name.

    Raises:
        UserError: The name carries no beginning of a sha256, or another one.
    """
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    named = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", path.name)
    if named is None:
        raise UserError(
            f"metric.features.inception.weights={path}: the file's name must end in the first 8 digits of its sha256, "
            f"as {WEIGHTS} does, so that a metric cannot be named after other weights. Rename the file to "
            f"{path.stem}-{actual[:8]}{path.suffix} if these are the weights you mean."
        )
    if not actual.startswith(named[1]):
        raise UserError(
            f"metric.features.inception.weights={path}: its sha256 begins with {actual[:8]}, not with {named[1]} as "
            f"in its name: it is damaged or another file. Fetch it again; {WEIGHTS} is at {HOME}."
        )
    return actual


def _load(path: Path) -> nn.Module:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"metric.features.inception.weights={path} holds no PyTorch weights: {error}") from error
    # torch-fidelity unpickles whatever it is given, so it is given what has just been read without that
    safe = io.BytesIO()
    torch.save(state, safe)
    safe.seek(0)
    try:
        return _extractor()("inception-v3-compat", ["2048"], feature_extractor_weights_path=safe)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"metric.features.inception.weights={path} fits no Inception of torch-fidelity: {error}"
        ) from error


def _extractor() -> Callable[..., nn.Module]:
    """torch-fidelity's extractor class; its module needs no torchvision, but the package's __init__ does."""
    try:
        module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
        raise UserError(
            f"metric=inception needs torch-fidelity and torchvision ({error}). Run "
            '`pip install "diffexp[fid]"`, or take metric=classifier.'
        ) from error
    return cast(Callable[..., Any], module.FeatureExtractorInceptionV3)
