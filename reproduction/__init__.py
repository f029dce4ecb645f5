"""The synthetic untrimmed data set and the experiments on it."""
