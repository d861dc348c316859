import hashlib
import importlib.util
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from diffexp.data import ImageData
from diffexp.errors import UserError
from diffexp.metrics.inception import WEIGHTS, InceptionFeatures, InceptionV3, checked_sha256

CPU = torch.device("cpu")


def data(channels: int = 1) -> ImageData:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, channels, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageData("noise", images[:2], images[2:])


def written(folder: Path, content: bytes, named: str | None = None) -> Path:
    """A weights file whose name carries its own sha256's beginning, or `named`."""
    prefix = hashlib.sha256(content).hexdigest()[:8] if named is None else named
    path = folder / f"weights-{prefix}.pth"
    path.write_bytes(content)
    return path


def test_weights_that_are_what_their_name_says_are_accepted(tmp_path: Path) -> None:
    path = written(tmp_path, b"weights")
    assert checked_sha256(path) == hashlib.sha256(b"weights").hexdigest()


def test_a_file_that_only_calls_itself_6726825d_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / WEIGHTS
    path.write_bytes(b"something else")
    begins = hashlib.sha256(b"something else").hexdigest()[:8]
    with pytest.raises(ValueError, match=rf"begins with {begins}, not with 6726825d"):
        InceptionV3(str(path)).build(data(), tmp_path, CPU)


def test_a_name_without_a_sha256_is_refused_and_a_name_offered(tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    path.write_bytes(b"weights")
    begins = hashlib.sha256(b"weights").hexdigest()[:8]
    with pytest.raises(ValueError, match=rf"Rename the file to inception-{begins}\.pth"):
        checked_sha256(path)


def test_absent_weights_are_named_with_the_place_they_belong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(UserError) as error:
        InceptionV3().build(data(), tmp_path, CPU)
    assert str(tmp_path / "checkpoints" / WEIGHTS) in str(error.value)
    assert "metric.features.inception.weights=" in str(error.value)


def test_images_of_two_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 channels"):
        InceptionV3().build(data(channels=2), tmp_path, CPU)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_weights_are_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    torch.save({"weight": Bomb()}, content)
    for harmful in (content.getvalue(), pickle.dumps(Bomb(), protocol=2)):
        path = written(tmp_path, harmful)
        with pytest.raises(ValueError, match="holds no PyTorch weights"):
            InceptionV3(path).build(data(), tmp_path, CPU)
    assert not Path("exploded").exists()


@pytest.mark.parametrize(
    ("sha256", "name"),
    [
        ("6726825d" + "0" * 56, "fid/inception"),
        ("0123abcd" + "0" * 56, "fd/inception_0123abcd"),
        ("16726825d" + "0" * 55, "fd/inception_16726825"),
    ],
)
def test_only_the_published_weights_make_a_fid(sha256: str, name: str) -> None:
    features = InceptionFeatures(torch.nn.Identity(), sha256, CPU)
    assert f"{features.frechet_name}/{features.name}" == name


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is here")
def test_without_torch_fidelity_the_extra_is_named(tmp_path: Path) -> None:
    content = io.BytesIO()
    torch.save({"weight": torch.zeros(1)}, content)
    path = written(tmp_path, content.getvalue())
    with pytest.raises(UserError, match=r'pip install "diffexp\[fid\]"'):
        InceptionV3(path).build(data(), tmp_path, CPU)


@pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None or importlib.util.find_spec("torchvision") is None,
    reason='needs torch-fidelity and torchvision: pip install "diffexp[fid]"',
)
def test_features_are_torch_fidelitys_own(tmp_path: Path) -> None:
    module: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)

    class RandomWeights(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...

    torch.manual_seed(0)
    theirs = RandomWeights("inception-v3-compat", ["2048"], feature_extractor_weights_path=empty)
    content = io.BytesIO()
    torch.save(theirs.state_dict(), content)
    ours = InceptionV3(written(tmp_path, content.getvalue())).build(data(), tmp_path, CPU)
    assert ours.name.startswith("inception_"), "random weights make no FID"
    grey = data().reference("train")
    torch.testing.assert_close(ours(grey), theirs(grey.repeat(1, 3, 1, 1))[0])
    colour = data(channels=3).reference("train")
    torch.testing.assert_close(ours(colour), theirs(colour)[0])
    assert ours(grey).shape == (2, ours.dimension)
