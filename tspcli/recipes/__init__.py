"""The recipes of TSP and TAC as data; see :mod:`tspcli.pretraining.training_recipe`."""
