"""Damage to a file, for the tests that it is noticed."""


def flip(folder):
    """Change a bit in the middle of a file, or of the largest one in a folder."""
    file = max((path for path in [folder, *folder.rglob("*")] if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
