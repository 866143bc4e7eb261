"""Data: the embedded English world, real text, batches and evaluation items.  Nothing here imports model code."""
