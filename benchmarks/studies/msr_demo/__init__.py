"""DMESR on a drawn shop, whose truth says what pictures and words are worth; `make study-demo` runs all of it."""
