"""A hook of mkdocs: the lessons."""
