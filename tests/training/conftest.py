"""Small runs on disk, made once."""

import shutil

import pytest
from run_files import train_into


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A complete run, not to be changed: tests work on copies."""
    path = tmp_path_factory.mktemp("runs") / "finished"
    train_into(path)
    return path


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    """A complete run of another seed, with the same files."""
    path = tmp_path_factory.mktemp("runs") / "foreign"
    train_into(path, seed=1)
    return path


@pytest.fixture
def run_dir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")
