def multilingual_contrast(states, mask, tau):
    """states (2n, W, D), mask (2n, W), row n + i translates row i -> (), the mean over all 2n rows i of

        -log  exp s(i, i+) / sum over the n rows j of the other side of exp s(i, j)      with s = cos / tau
    """
    raise NotImplementedError
