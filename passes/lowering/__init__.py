"""How each float op becomes an integer op at the freeze."""
