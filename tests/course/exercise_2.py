def contrastive_loss(states, concept, tau):
    """states (N, D), concept (N,) -> (), the mean over all pairs w != v of one concept of

        -log  exp s(w, v) / sum over u != w of exp s(w, u)      with s = cos / tau
    """
    raise NotImplementedError
