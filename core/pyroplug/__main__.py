"""``python -m pyroplug``: the command ``pyroplug``."""

from __future__ import annotations

from pyroplug.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
