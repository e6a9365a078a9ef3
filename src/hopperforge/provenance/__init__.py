"""What can be said of a package to those who did not build it: its bill of materials, statements and comparisons."""
