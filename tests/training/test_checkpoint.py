"""Checkpoints: whole or not at all, and nothing in one is ever run."""

import errno
import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict

import pytest
import torch

from binarynet import models
from binarynet.errors import DataError, FileFormatError
from binarynet.training import checkpoint


def network(hidden=5):
    torch.manual_seed(3)
    return models.build("mlp", input_shape=(3, 3, 1), classes=4, hidden=[hidden])


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoint.save(path, "test", {"network": network().state_dict(), "epoch": 3})
    return path


def write_archive(path, pickled, *, members=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
        archive.writestr("archive/byteorder", "little")
        for name, content in members:
            archive.writestr(name, content)


def test_what_is_saved_loads(saved):
    content = checkpoint.load(saved, "test")
    assert content["epoch"] == 3
    with torch.device("meta"):
        model = network()
    checkpoint.load_network(model, content["network"], saved)
    for name, tensor in network().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert all(p.requires_grad for p in model.parameters())
    assert [entry.name for entry in saved.parent.iterdir()] == ["a.ckpt"]


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    content = saved.read_bytes()
    for length in {0, 1, 2, 30, len(content) - 1, *random.Random(1).sample(range(len(content)), 60)}:
        saved.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match="not a checkpoint, or truncated") as caught:
            checkpoint.load(saved, "test")
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_never_changes_the_content(saved):
    content = saved.read_bytes()
    expected = checkpoint.load(saved, "test")
    with zipfile.ZipFile(saved) as archive:
        directory = archive.start_dir
    refused = 0
    for position in [*random.Random(2).sample(range(directory), 200), *range(directory, len(content))]:
        damaged = bytearray(content)
        damaged[position] ^= 1 << random.Random(position).randrange(8)
        saved.write_bytes(damaged)
        try:
            loaded = checkpoint.load(saved, "test")
        except FileFormatError:
            refused += 1
            continue  # else it was in padding, or in a field such as a time that nobody reads
        assert loaded.keys() == expected.keys()
        for name, tensor in expected["network"].items():
            assert torch.equal(loaded["network"][name], tensor)
    assert refused > 300


class RunsCode:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_code_is_refused_and_not_run(tmp_path, protocol):
    path, proof = tmp_path / "evil.ckpt", tmp_path / "it-ran"
    write_archive(path, pickle.dumps(RunsCode(os.mkdir, str(proof)), protocol))
    with pytest.raises(FileFormatError, match=r"refused, nothing was run") as caught:
        checkpoint.load(path, "test")
    assert protocol > 2 or "mkdir" in str(caught.value)
    assert not proof.exists()


def test_code_in_a_bare_pickle_is_refused_and_not_run(tmp_path):
    path, proof = tmp_path / "evil.ckpt", tmp_path / "it-ran"
    path.write_bytes(pickle.dumps(RunsCode(os.mkdir, str(proof))))
    with pytest.raises(FileFormatError, match="not a checkpoint, or truncated"):
        checkpoint.load(path, "test")
    assert not proof.exists()


def test_calls_that_torch_would_allow_but_cost_memory_are_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    write_archive(path, pickle.dumps(RunsCode(bytearray, 1 << 40), 2))
    with pytest.raises(FileFormatError, match=r"wants to use __builtin__\.bytearray"):
        checkpoint.load(path, "test")


def test_compressed_parts_are_refused(tmp_path):
    path = tmp_path / "bomb.ckpt"
    bomb = [("archive/data/0", bytes(1 << 24))]
    write_archive(path, pickle.dumps({}, 2), members=bomb, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FileFormatError, match="is compressed, which torch never writes"):
        checkpoint.load(path, "test")


def claims(num_elements, size, stride):
    """A pickle of a tensor over storage "0" that claims ``num_elements`` float32."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            named = isinstance(value, str) and value == "the storage"
            return ("storage", torch.FloatStorage, "0", "cpu", num_elements) if named else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, ("the storage", 0, size, stride, False, OrderedDict())

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"format": "binarynet", "version": 1, "kind": "test", "tensor": Tensor()})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("num_elements", "size", "stride"),
    [
        (4, (1 << 40,), (1,)),
        (1 << 40, (1 << 40,), (1,)),
        (1 << 40, (4,), (1,)),
        (4, (4,), (1 << 40,)),
        (-4, (4,), (1,)),
        (4, (-4,), (1,)),
    ],
)
def test_tensors_that_claim_more_than_the_file_holds_are_refused(tmp_path, num_elements, size, stride):
    path = tmp_path / "big.ckpt"
    write_archive(path, claims(num_elements, size, stride), members=[("archive/data/0", bytes(16))])
    with pytest.raises(FileFormatError):
        checkpoint.load(path, "test")


def test_a_tensor_that_repeats_one_value_a_trillion_times_is_refused(tmp_path):
    path = tmp_path / "big.ckpt"
    write_archive(path, claims(4, (1 << 40,), (0,)), members=[("archive/data/0", bytes(16))])
    content = checkpoint.load(path, "test")  # it takes four bytes
    with torch.device("meta"):
        model = torch.nn.Module()
        model.tensor = torch.nn.Parameter(torch.empty(1 << 40))
    with pytest.raises(FileFormatError, match="tensor is not contiguous"):
        checkpoint.load_network(model, {"tensor": content["tensor"]}, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a checkpoint of binarynet"),
        ({"state_dict": {}}, "not a checkpoint of binarynet"),
        ({"format": "binarynet", "version": 2}, "checkpoint version 2, this binarynet reads version 1"),
        ({"format": "binarynet", "version": 1, "kind": "other"}, "expected a checkpoint of kind 'test', got 'other'"),
    ],
)
def test_other_torch_files_are_told_apart(tmp_path, content, message):
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    with pytest.raises(FileFormatError, match=message):
        checkpoint.load(path, "test")


def test_a_whole_module_is_refused(tmp_path):
    path = tmp_path / "module.ckpt"
    torch.save(network(), path)
    with pytest.raises(FileFormatError, match=r"wants to use .*refused, nothing was run"):
        checkpoint.load(path, "test")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path, tmp_path / "none.ckpt"):
        with pytest.raises(FileFormatError, match="no such checkpoint"):
            checkpoint.load(path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "norm1.bias"}, "lacks 'norm1.bias'"),
        (lambda s: {**s, "extra": s["norm1.bias"]}, "has an unknown 'extra'"),
        (lambda s: {**s, "norm1.bias": torch.zeros(6)}, r"norm1.bias is torch.float32 \[6\], expected .* \[5\]"),
        (lambda s: {**s, "norm1.bias": torch.zeros(5).double()}, r"norm1.bias is torch.float64 \[5\], expected"),
        (lambda s: {**s, "norm1.bias": 3}, "norm1.bias is int, expected torch.float32"),
        (lambda s: [], "holds no network"),
    ],
)
def test_networks_that_do_not_fit_are_refused_by_name(change, message):
    model = network()
    with pytest.raises(FileFormatError, match="x.ckpt: .*" + message):
        checkpoint.load_network(model, change(dict(model.state_dict())), "x.ckpt")


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(saved, monkeypatch, fails):
    before = saved.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "write":
        monkeypatch.setattr(checkpoint._Watched, "_put", full)
    else:
        monkeypatch.setattr(os, fails, full)
    with pytest.raises(DataError, match=r"a\.ckpt: cannot be written: the disk is full") as caught:
        checkpoint.save(saved, "test", {"network": network(500).state_dict()})
    assert "\n" not in str(caught.value)
    assert saved.read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == ["a.ckpt"]


def test_other_failures_of_torch_are_not_hidden(tmp_path):
    with pytest.raises((AttributeError, pickle.PicklingError)):
        checkpoint.save(tmp_path / "a.ckpt", "test", {"function": lambda: None})
    assert list(tmp_path.iterdir()) == []
