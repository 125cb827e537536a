"""Controls of tiny: hidden tokens that differ from the pair of the causal term: docs/EVALUATION.md, "The study"."""
