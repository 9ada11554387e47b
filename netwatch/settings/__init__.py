"""How settings are declared, read from files, variables and flags, and written down."""
