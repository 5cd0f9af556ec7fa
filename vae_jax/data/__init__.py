"""Images in, checked: data sets and where they come from."""
