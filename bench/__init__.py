"""What netwatch costs and what it loses, measured on real traffic: `python -m bench`. README.md says how to read it."""
