"""Charts of results, one file for each experiment; none of them needs matplotlib before it draws."""
