"""Ground floor: what is kept and how it is found. No torch here."""
