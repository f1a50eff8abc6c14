"""For tests: strategies, comparison to the last bit, synthetic data of known truth."""
