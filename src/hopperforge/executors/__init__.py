"""Who places units on cores and machines."""
