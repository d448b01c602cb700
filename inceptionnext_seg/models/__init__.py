"""The networks as their papers write them, their weights, and transformations of whole models."""
