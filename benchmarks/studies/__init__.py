"""Studies, each a folder: study.toml, what its stores are made of, and the light files of its cells."""
