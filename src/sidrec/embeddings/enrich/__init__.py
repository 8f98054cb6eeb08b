"""Facts about items from outside: asked politely, matched by title, merged, and kept by item id."""
