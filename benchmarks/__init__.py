"""How fast this package is on this machine, each figure by one command: see README.md in this folder."""
