"""What the smoke tests of all recipes share. Standard library and pytest alone, Python 3.9 and newer: see session.py.

The conftest.py of each recipe's smoke folder puts `recipes/` on sys.path and gives this package what is its own.
"""
