"""Text to model: readers of matrix.yaml, recipes, upstream.yaml and the words of a request; all errors at once."""
