"""Shared by the tests: the repository on the path, one thread, and one small corpus that is built once."""
import functools
import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")   # before torch, and for the commands that tests start
os.environ["CUDA_VISIBLE_DEVICES"] = ""         # bit-equal runs are promised on a CPU; gpu.py checks a GPU

import pytest  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
torch.set_num_threads(1)

from data.corpus import Corpus  # noqa: E402
from data.lab import likelihood, measures  # noqa: E402
from data.world import build  # noqa: E402
from data.world.world import World  # noqa: E402

build.world_items = functools.cache(build.world_items)   # many tests build a folder of the same world
# torch's modules hold half a million objects; searching them for garbage again and again costs 7 % of the time
gc.freeze()
gc.set_threshold(50_000, 20, 50)
likelihood.ROWS = measures.ROWS = 20   # measuring perplexity on 150 rows is a tenth of the time of all tests
SETTINGS = dict(seed=0, languages=["en", "clone", "reversed", "shuffled-2"], n_words=30_000, clone_share=0.1,
                vocab_size=400)


@pytest.fixture(scope="session")
def settings():
    return dict(SETTINGS)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """English and three languages made from it: same order, reversed, neighbouring words swapped."""
    return Corpus(build.load(tmp_path_factory.mktemp("cache"), **SETTINGS))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """The folder of generated corpora, so that tests with the same settings build one."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def world():
    return World(0)
