"""One module per stage of a build; each is a function from typed inputs to one typed result."""
