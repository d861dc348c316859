"""Files from somebody else, made to harm: nothing in them runs, leaves its folder, fills the memory or the screen."""

import gzip
import io
import itertools
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save
from synthetic import change_record, write_run, write_study

from diffexp.cli import report
from diffexp.cli.main import main
from diffexp.data.stored import StoredImages
from diffexp.io.jsonio import read_yaml
from diffexp.io.redact import printable, secret_in, without_secrets
from diffexp.metrics.cached import cached
from diffexp.runs.directory import RunDirectory, read_config
from diffexp.runs.study import read_study

TINY = ("trainer.max_steps=1", "training.batch_size=4", "validation.count=8", "validation.bound=null",
        "sampling.grid=1", "sampler.steps=2", "network.widths=[8]", "network.attention=[false]", "network.layers=1",
        "network.groups=4", "logger=none", "metric=none", "trainer.accelerator=cpu")  # fmt: skip


@pytest.fixture(autouse=True)
def float32() -> None:
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that is done, to be copied and made hostile."""
    torch.set_default_dtype(torch.float32)
    root = tmp_path_factory.mktemp("trained")
    assert main(["train", f"root={root}", "study=s", *TINY]) == 0
    (run,) = read_study(root / "s")
    return run.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained.parents[1], tmp_path / "s")
    return tmp_path / "s" / trained.parent.name / trained.name


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that is there once foreign code has run."""
    return tmp_path / "it ran"


class Touch:
    """What a pickle may hold: a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def refused(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    capsys.readouterr()
    assert main(list(line)) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said) < 2000
    return said


# --- code ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["zip", "bare"])
def test_a_checkpoint_is_never_unpickled(
    run: Path, mark: Path, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    file = run / "checkpoints/last.ckpt"
    good = torch.load(file, weights_only=True)
    if protocol == "zip":
        torch.save({**good, "diffexp": {**good["diffexp"], "more": Touch(mark)}}, file)
    else:
        file.write_bytes(pickle.dumps(Touch(mark)))
    for command in ("sample", "evaluate"):
        assert "cannot be read as a checkpoint" in refused(capsys, command, f"run={run}")
    assert main(["train", f"root={run.parents[2]}", "study=s", *TINY, "trainer.max_steps=2"]) == 1
    assert not mark.exists()
    torch.load(file, weights_only=False) if protocol == "zip" else pickle.loads(file.read_bytes())  # it would do it
    assert mark.exists()


CALLS: list[dict[str, Any]] = [
    {"_target_": "os.mkdir", "path": "MARK"},
    {"_target_": "subprocess.run", "args": ["mkdir", "MARK"]},
    {"_target_": "builtins.eval", "_args_": ["__import__('os').mkdir('MARK')"]},
    {"_target_": "torch.load", "f": "PICKLE", "weights_only": False},
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.mkdir", "path": "MARK"}},
    {"_target_": "diffexp.targets.Edm", "sigma_data": {"_target_": "pathlib.Path.mkdir", "self": "MARK"}},
    {"_target_": "diffexp.targets.Edm", "_args_": [[{"_target_": "os.mkdir", "path": "MARK"}]]},
    {"_target_": "subprocess.Popen", "args": ["mkdir", "MARK"]},
]
NODES = ("target", "schedule", "weighting", "times", "sampler", "metric", "data", "network", "optimizer")


def write_config(run: Path, config: dict[str, Any], of_0_1: bool = False) -> None:
    """As config.json, or as config.yaml alone."""
    (run / "config.json").unlink(missing_ok=True)
    (run / ("config.yaml" if of_0_1 else "config.json")).write_text(
        yaml.safe_dump(config) if of_0_1 else json.dumps(config)
    )


def hostile(value: Any, mark: Path, bomb: Path) -> Any:
    return json.loads(json.dumps(value).replace("MARK", str(mark)).replace("PICKLE", str(bomb)))


@pytest.mark.parametrize("node", [node for node in NODES if node != "optimizer"])
def test_nothing_but_a_class_of_the_right_kind_is_called_whatever_a_runs_configuration_names(
    run: Path, mark: Path, capsys: pytest.CaptureFixture[str], node: str
) -> None:
    """The checkpoint is of the same configuration, so that nothing else refuses it."""
    (bomb := mark.with_name("bomb")).write_bytes(pickle.dumps(Touch(mark)))
    good, checkpoint = read_config(run), torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    for call in CALLS if node == "target" else (CALLS[0], CALLS[-1]):
        config = {**good, node: hostile(call, mark, bomb)}
        torch.save(
            {**checkpoint, "diffexp": {**checkpoint["diffexp"], "config": config}}, run / "checkpoints/last.ckpt"
        )
        for of_0_1 in (False, True):
            write_config(run, config, of_0_1)
            said = refused(capsys, "evaluate", f"run={run}", "likelihood.count=0")
            assert f"{node}" in said
            assert "this must name" in said
            assert not mark.exists()


def test_a_class_of_another_kind_is_refused_inside_a_network_too(
    run: Path, mark: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config(run)
    config["network"]["widths"] = {"_target_": "torch.nn.Sequential", "_args_": [{"_target_": "os.mkdir", "path": "x"}]}
    write_config(run, config)
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    torch.save({**checkpoint, "diffexp": {**checkpoint["diffexp"], "config": config}}, run / "checkpoints/last.ckpt")
    said = refused(capsys, "sample", f"run={run}")
    assert "network.widths._args_.0._target_=os.mkdir: this must name" in said


@pytest.mark.parametrize("of_0_1", [False, True])
def test_the_environment_is_not_read_for_a_runs_configuration(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, of_0_1: bool
) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret-s3cret")
    config = read_config(run)
    config["sampler"]["grid"] = "${oc.env:MY_TOKEN}"
    write_config(run, config, of_0_1)
    for command in ("sample", "evaluate"):
        said = refused(capsys, command, f"run={run}")
        assert "sampler.grid in its configuration is no plain value" in said
        assert "s3cret" not in said


BOMBS = {
    "tag": "x: !!python/object/apply:os.system ['true']",
    "laughs": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghij")),
    "itself": "a: &a [*a]",
    "flow": "[" * 100_000,
    "block": "- " * 100_000,
    "keys": "? " * 100_000,
    "base 60": "x: 1" + ":1" * 300_000,
    "digits": "x: " + "9" * 5000,
    "date": "x: 2020-99-99",
    "bytes": "x: \0",
    "flow, within the size": "[" * 60_000,
    "block, within the size": "- " * 30_000,
    "keys, within the size": "? " * 30_000,
    "base 60, within the size": "x: 1" + ":1" * 30_000,
    "names": "".join(f"&a{i} " for i in range(10_000)) + "x: 1",
    "words": "x: 'a" + "\n" * 60_000 + "'b",
    "binary": "x: !!binary aGFsbG8=",
    "a set": "x: !!set {a, b}",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_yaml_that_is_made_to_run_to_overflow_or_never_to_end_is_refused(tmp_path: Path, kind: str) -> None:
    """In a process of its own: libyaml overflowed the stack of this one."""
    run = write_run(tmp_path, "s", "x0", 0, lines=1, validations=1)
    run.config_file.unlink()
    (file := run.path / "config.yaml").write_text(BOMBS[kind])
    with_limit = "import resource as r; r.setrlimit(r.RLIMIT_CPU, (20, 20)); r.setrlimit(r.RLIMIT_AS, (4 << 30,) * 2)"
    program = f"{with_limit}; from diffexp.cli.main import main; main(['report', 's', '--root', {str(tmp_path)!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    with pytest.raises(ValueError, match="is no readable YAML"):
        read_yaml(file)


def test_a_record_of_any_size_depth_and_number_is_read_or_passed_over(tmp_path: Path) -> None:
    study = write_study(tmp_path, "s", ("x0",), (0, 1, 2, 3, 4), lines=1, validations=1)
    runs = sorted(study.glob("*/*/run.json"))
    good = runs[0].read_text()
    runs[0].write_text("[" * 200_000)
    runs[1].write_text('{"a":' * 200_000)
    runs[2].write_text(good.replace('"seed": 2', '"seed": ' + "9" * 10_000))
    change_record(runs[3], target="x" * 3_000_000, final={"val/belief_eps": float("inf"), "y" * 100_000: 1.0})
    runs[4].write_text(good.replace('"images_seen": 64000', '"images_seen": Infinity'))
    assert main(["report", "s", "--root", str(tmp_path)]) == 0
    assert (study / "report.html").stat().st_size < 12_000_000


# --- places ----------------------------------------------------------------------------------------------


def test_links_out_of_a_study_are_neither_read_nor_written_through(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.rmtree(run / "samples")
    (run / "samples").symlink_to(outside)
    assert "is a link out of the study" in refused(capsys, "sample", f"run={run}", "count=1")
    assert not list(outside.iterdir())
    shutil.move(run / "checkpoints/last.ckpt", outside / "last.ckpt")
    (run / "checkpoints/last.ckpt").symlink_to(outside / "last.ckpt")
    assert "its last.ckpt is a link" in refused(capsys, "sample", f"run={run}", f"out={tmp_path}/x.png")
    for name in ("config.json", "config.yaml"):
        (run / name).rename(outside / name)
        (run / name).symlink_to(outside / name)
    assert "there is no run in that folder" in refused(capsys, "sample", f"run={run}")


def test_what_a_run_calls_its_data_study_and_choices_is_no_path(run: Path, tmp_path: Path) -> None:
    """The cache file is named after the data; see also tests/test_shared_caches.py."""
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(run)}
    change_record(run / "run.json", study="../../..", target="../../../x", data="/etc", config_hash="..", seed="../7")
    assert main(["sample", f"run={run}", "count=1"]) == 0
    assert main(["report", str(run.parents[1])]) == 0
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(run)}
    assert {path.name for path in after - before} == {"report.html", "summary.csv", "summary.md"}


@pytest.mark.parametrize("study", ["a\x1b[31m", "a\nb", "a\rb", "a\tb", "\x7f"])
def test_a_study_is_not_named_after_control_characters(tmp_path: Path, study: str) -> None:
    with pytest.raises(ValueError, match="not a plain name"):
        RunDirectory(tmp_path, study, ("x0",), "0" * 8, 0)


# --- screens ---------------------------------------------------------------------------------------------

MEAN = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202eevil[bold]x[/nope]"


def test_a_terminal_gets_no_control_characters_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in ("epsilon", "x0"):
        run = write_run(tmp_path, "s", target, 0, lines=1, validations=1, settings={"data": {"name": MEAN}})
        change_record(run.record_file, target=f"{target}{MEAN}", network=MEAN, device=MEAN, study=MEAN)
    failed = write_run(tmp_path, "s", "v", 1, status="failed", error=MEAN, lines=1, validations=1)
    failed.path.parent.rename(failed.path.parent.with_name(f"v-{MEAN.replace('/', '_')}"))
    for kind in ((), ("--format", "table"), ("--format", "markdown"), ("--format", "csv"), ("--format", "json")):
        capsys.readouterr()
        assert report.main(["s", "--root", str(tmp_path), *kind]) == 0
        shown = capsys.readouterr().out
        assert printable(shown) == shown, kind
        assert "[bold]x[/nope]" in shown or "evil" not in shown
    assert report.main([f"n{MEAN}", "--root", str(tmp_path)]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_an_error_about_a_file_shows_its_name_without_obeying_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / f"{MEAN.replace('/', '_')}.png").write_bytes(b"no picture")
    said = refused(capsys, "train", f"root={tmp_path}", *TINY, "data=images", f"data.path={tmp_path}/data")
    assert "\\x1b[2J" in said
    assert printable(said) == said


# --- secrets ---------------------------------------------------------------------------------------------

KEY = "0123456789abcdef0123456789abcdef01234567"


def every_byte(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_no_key_of_the_environment_reaches_a_file_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B's own offline file included, and the traceback of a run that fails with the key in its words."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", f"hf_{KEY}")
    line = ["train", f"root={tmp_path}", "study=s", *TINY]
    assert main([*line, "logger=wandb"]) == 0

    def fail(*_: object) -> None:
        raise RuntimeError(f"401 for https://me:{KEY}@host/x with {KEY} and hf_{KEY}")

    monkeypatch.setattr("diffexp.training.callbacks.Validate.on_train_start", fail, raising=False)
    assert main([*line, "seed=1"]) == 1
    assert KEY not in capsys.readouterr().err
    (failed,) = [run for run in read_study(tmp_path / "s") if run.status == "failed"]
    assert failed.text("error") == "RuntimeError: 401 for https://me:***@host/x with *** and ***"
    assert "401 for https://me:***@host/x" in (failed.path / "traceback.txt").read_text()
    assert main(["report", "s", "--root", str(tmp_path)]) == 0
    assert KEY.encode() not in every_byte(tmp_path)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("data.path=https://me:hunter22@host/x.npz", "data.path: it holds a URL with a password"),
        ("data.hub=https://hf_abcdefgh@host/x", "data.hub: it holds a URL with a password"),
        (f"study={KEY}", "study: it holds the value of WANDB_API_KEY"),
        ("logger.project=${oc.env:WANDB_API_KEY}", "logger.project: it holds the value of WANDB_API_KEY"),
        (f"+logger.api_key={KEY[:12]}", "logger.api_key: its name is that of a password"),
        ("+data.password=hunter22", "data.password: its name is that of a password"),
    ],
)
def test_a_password_in_a_configuration_is_refused_without_being_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, told: str
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    quoted = typed if "$" in typed else '="'.join(typed.split("=", 1)) + '"'
    said = refused(capsys, "train", f"root={tmp_path}", *TINY, "logger=wandb", "data=images", quoted)
    assert told in said
    for secret in ("hunter22", "hf_abcdefgh", KEY[:12]):
        assert secret not in said
    assert not list(tmp_path.rglob("*"))


def test_what_is_no_password_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "digits_and_letters")
    monkeypatch.setenv("MY_KEY", "digits")  # too short to be one
    for key, value in {"data.name": "digits", "network.tokens": "digits_and_letters", "network.token": 64,
                       "data.path": "/home/me/key@work/x.npz", "data.url": "https://host:80/a@b"}.items():  # fmt: skip
        assert secret_in(key, value) is None
        assert without_secrets(f"{key}={value}") == f"{key}={value}"


def test_a_megabyte_without_a_space_is_searched_for_passwords_in_one_pass() -> None:
    """A search that begins anew at each of its letters takes an hour and a half."""
    long = "x" * 1_000_000
    assert without_secrets(f"{long} https://me:hunter22@host https://hf_abcdefgh@host/{long}") == (
        f"{long} https://me:***@host https://***@host/{long}"
    )


# --- data ------------------------------------------------------------------------------------------------


def load(path: Path) -> None:
    StoredImages("images", str(path)).load()


def npy(shape: tuple[int, ...], body: bytes) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A thousand times its size once unpacked, and more than the machine has."""
    size = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", npy((size // 64, 8, 8), b"\0" * 1_000_000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # the sizes that it claims
        place = content.index(signature) + at
        content[place : place + 4] = struct.pack("<I", 0xFFFFFFFE)
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"x.npz.*damaged|x.npz.*memory"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("shape", [(10**12, 8, 8), (2**62, 8, 8), (5, -8, 8), (5, 10**9, 10**9)])
def test_an_npz_whose_header_lies_is_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", npy(shape, bytes(320)))
    with pytest.raises(ValueError, match=r"x.npz.*damaged|x.npz.*memory"):
        load(tmp_path / "x.npz")


def test_an_idx_bomb_is_not_unpacked_beyond_what_it_announces(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 8, 8)
    packer, zeros, crc = zlib.compressobj(9, wbits=-15), bytes(2**24), zlib.crc32(header)
    start, part = (packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH) for data in (header, zeros))
    for _ in range(64):
        crc = zlib.crc32(zeros, crc)
    end = packer.flush() + struct.pack("<2I", crc, len(header) + 64 * len(zeros))
    body = gzip.compress(b"")[:10] + start + 64 * part + end  # as if packed in one piece, which takes seconds
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (tmp_path / name).write_bytes(body)  # a MB for each GiB
    labels = gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 5) + bytes(5))
    for name in ("train-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (tmp_path / name).write_bytes(labels)
    limit = "import resource as r; r.setrlimit(r.RLIMIT_DATA, (1500 << 20,) * 2)"
    program = (
        f"import torch, numpy; from diffexp.data.stored import StoredImages; {limit}\n"
        f"try: StoredImages('x', {str(tmp_path)!r}).load()\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "announces 5 x 8 x 8 = 320 bytes but holds more" in done.stdout, done.stderr[-500:]


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_bomb_is_named_and_not_decoded(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000), 9)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(picture)
    with pytest.raises(ValueError, match=r"x.png cannot be read as an image"):
        load(tmp_path)


@pytest.mark.parametrize("length", [8, 2**40, 2**63, 10**18])
def test_a_cache_file_whose_header_lies_is_computed_again(
    tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path, tensors = tmp_path / "x.safetensors", {"x": torch.arange(5)}
    good = save(tensors, {"fingerprint": "w"})
    header = json.dumps({"x": {"dtype": "I64", "shape": [10**9], "data_offsets": [0, 8 * 10**9]}}).encode()
    lying = struct.pack("<Q", length) + good[8:] if length != 8 else struct.pack("<Q", len(header)) + header + bytes(40)
    path.write_bytes(lying)
    assert torch.equal(cached(path, "w", lambda: tensors)["x"], tensors["x"])
    assert "is ignored: it is damaged" in capsys.readouterr().out


def test_a_cache_file_is_never_unpickled(tmp_path: Path, mark: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"x": Touch(mark)}, buffer)
    (tmp_path / "x.safetensors").write_bytes(buffer.getvalue())
    assert cached(tmp_path / "x.safetensors", "w", lambda: {"x": torch.zeros(1)})["x"] == 0
    assert not mark.exists()


def test_the_npz_that_the_sampler_writes_holds_no_objects(run: Path, tmp_path: Path) -> None:
    assert main(["sample", f"run={run}", "count=2", f"out={tmp_path}/x.npz"]) == 0
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert file["images"].dtype == np.uint8
