"""A solution of exercise 1."""
from model import IGNORE


def code_switch(words, translations):
    inputs, targets = [], []
    for word, translation in zip(words, translations):
        if translation is None:
            inputs += word
            targets += word
        else:
            inputs += translation
            targets += [word[0]] + [IGNORE] * (len(translation) - 1)
    return inputs, targets
