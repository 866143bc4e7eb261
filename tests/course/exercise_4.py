import torch


@torch.no_grad()
def reset(weight, optimizer, generator):
    """Redraw weight (V, D) in place from N(0, 0.02²) and let AdamW forget its state of this parameter."""
    raise NotImplementedError
