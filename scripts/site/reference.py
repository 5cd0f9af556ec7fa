"""A hook of mkdocs: the API pages."""
