"""The networks as their papers write them, their weights, and what is done to a model as a whole."""
