"""Back ends: targets, the memory plan, kernel generation through TVM, the C runtime and the bundle."""
