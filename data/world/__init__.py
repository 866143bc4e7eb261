"""The built-in world: simple English from a seed, small enough for a laptop, and languages made of it."""
