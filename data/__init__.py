"""Data: the embedded English world, batches, evaluation items, measures.  Nothing here imports model code."""
