"""Which commit a run was trained by."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from binarynet.training import provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder in which this package might lie, and git for it."""
    source = tmp_path / "src" / "binarynet" / "training" / "provenance.py"
    source.parent.mkdir(parents=True)
    source.write_text("x")
    monkeypatch.setattr(provenance, "__file__", str(source))

    def git(*arguments):
        identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "core.hooksPath=/dev/null")
        plain = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=plain).stdout.strip()

    return source, git


def test_outside_of_a_checkout_it_is_not_known(checkout):
    assert provenance.commit() is None


def test_the_commit_and_whether_files_differ(checkout, monkeypatch):
    source, git = checkout
    git("init", "--quiet")
    assert provenance.commit() is None  # nothing was committed yet
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag takes no commit's place")
    head = git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(Path("/nowhere")))  # as in a hook of another repository
    assert provenance.commit() == head
    source.write_text("y")
    assert provenance.commit() == f"{head}-dirty"


def test_without_git_it_is_not_known(checkout, monkeypatch):
    _, git = checkout
    git("init", "--quiet")
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None
