"""Files appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from binarynet import files
from binarynet.errors import DataError
from binarynet.files import require_writable, whole_file, write_whole


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(("content", "stored"), [(b"\x00\xff", b"\x00\xff"), ("grün", b"gr\xc3\xbcn"), (b"", b"")])
def test_a_file_is_written_and_replaced(tmp_path, content, stored):
    target = tmp_path / "model.bnn"
    target.write_bytes(b"old")
    write_whole(str(target), content)
    assert target.read_bytes() == stored
    assert names(tmp_path) == ["model.bnn"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "model.bnn"
    target.write_bytes(b"old")
    with pytest.raises(type(error)), whole_file(target) as temporary:  # noqa: PT012 (the block is what fails)
        temporary.write_bytes(b"half")
        assert temporary.parent == tmp_path
        assert target.read_bytes() == b"old"
        raise error
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["model.bnn"]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    target = tmp_path / "model.bnn"
    target.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step != "write":
        monkeypatch.setattr(os, step, full)
    message = r"model\.bnn: cannot be written: the disk is full; free some space"
    with pytest.raises(DataError, match=message), whole_file(target) as temporary:  # noqa: PT012 (the block fails)
        temporary.write_bytes(b"half")
        if step == "write":
            full()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["model.bnn"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_really_full_device_is_reported(tmp_path):
    with pytest.raises(DataError, match="the disk is full"):  # noqa: SIM117
        with whole_file(tmp_path / "a"), open("/dev/full", "wb") as full:
            full.write(b"x" * 100_000)
    assert names(tmp_path) == []


def test_directories_and_devices_are_refused(tmp_path):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(DataError, match=f"{name}: cannot be written: it is not a regular file"):
            write_whole(tmp_path / name, b"x")
    with pytest.raises(DataError, match="/dev/null: cannot be written: it is not a regular file"):
        write_whole("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert names(tmp_path) == ["directory", "fifo"]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(DataError, match=r"missing/model\.bnn: cannot be written: No such file or directory"):
        write_whole(tmp_path / "missing" / "model.bnn", b"x")


def test_a_directory_without_permission_is_named(tmp_path, not_root):
    tmp_path.chmod(0o500)
    with not_root(), pytest.raises(DataError, match=r"model\.bnn: cannot be written: Permission denied"):
        write_whole(tmp_path / "model.bnn", b"x")
    assert names(tmp_path) == []
    tmp_path.chmod(0o700)


def test_what_can_be_written_is_known_beforehand(tmp_path, not_root):
    (tmp_path / "directory").mkdir()
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        require_writable(tmp_path / name)
    with pytest.raises(DataError, match="directory: cannot be written: it is not a regular file"):
        require_writable(tmp_path / "directory")
    with pytest.raises(DataError, match="x: cannot be written: No such file or directory"):
        require_writable(tmp_path / "missing" / "x")
    tmp_path.chmod(0o500)
    with not_root(), pytest.raises(DataError, match="new: cannot be written: Permission denied"):
        require_writable(tmp_path / "new")
    tmp_path.chmod(0o700)
    assert names(tmp_path) == ["directory", "old"]
    assert (tmp_path / "old").read_bytes() == b"old"


def test_the_longest_names_work(tmp_path):
    name = "ü" * 127
    write_whole(tmp_path / name, b"x")
    assert names(tmp_path) == [name]


def test_cache_directory_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("BINARYNET_CACHE", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_directory() == tmp_path / "binarynet"
    monkeypatch.setattr("sys.platform", "darwin")
    assert files.cache_directory() == Path.home() / "Library" / "Caches" / "binarynet"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert files.cache_directory() == tmp_path / "local" / "binarynet"


def test_cache_directory_without_a_home(monkeypatch):
    monkeypatch.setenv(files.CACHE_VARIABLE, "~nobody-is-called-so/cache")
    with pytest.raises(DataError, match=r"no cache directory: there is no home directory.*set BINARYNET_CACHE"):
        files.cache_directory()
