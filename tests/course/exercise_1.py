from model import IGNORE


def code_switch(words, translations):
    """[[5, 6], [7]], [[70, 71, 72], None] -> inputs [70, 71, 72, 7], targets [5, IGNORE, IGNORE, 7]."""
    raise NotImplementedError
