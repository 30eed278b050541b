"""Speed of what we build against the parts it is built on and against peers: always in one run, always as a ratio."""
