"""The doctor: what runs on a node that has nothing but Python 3.9. Standard library alone, nothing else of ours."""
