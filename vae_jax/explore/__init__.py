"""A run as one HTML file to look around in: Python writes the networks and some images, JavaScript does the rest."""
