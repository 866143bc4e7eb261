"""Experiments: options, run folders, processes, measures, tables, plots, claims and studies."""
