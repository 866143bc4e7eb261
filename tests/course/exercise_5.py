def expand(model, n, generator):
    """Give a GPT n more tokens, in place.  Their rows of embedding and head, from N(0, 0.02²), are all that
    learns.  The scores of the old tokens stay what they are, also under AdamW with weight decay.
    """
    raise NotImplementedError
