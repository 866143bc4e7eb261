"""All but models and methods: text, batches, measures, runs, reports; data/README.md is the map."""
