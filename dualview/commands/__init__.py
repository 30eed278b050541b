"""One file a verb. Each has a function `run`: its signature is the command line, its docstring the help."""
