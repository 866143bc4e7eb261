def interval(system, other):
    """(n,), (n,) -> (low, high): mean(d) ± t sd(d) / sqrt(n) with d = system - other, sd of a sample, and
    Student's t, which is 4.303 for n = 3 and 2.776 for n = 5."""
    raise NotImplementedError
