"""What the tests share: the repository on the path, one thread, and one small corpus that is built once."""
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")   # before torch, and for the commands that tests start

import pytest  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)

from data import corpus as corpora  # noqa: E402

SETTINGS = dict(seed=0, languages=["en", "clone", "reversed", "shuffled-2"], n_words=30_000, clone_share=0.1,
                vocab_size=400)


@pytest.fixture(scope="session")
def settings():
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """English, and three languages made of it: same order, reversed, neighbouring words swapped."""
    return corpora.load(tmp_path_factory.mktemp("cache"), **SETTINGS)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where runs keep their corpora: tests with the same settings build one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def world(corpus):
    return corpus.world
