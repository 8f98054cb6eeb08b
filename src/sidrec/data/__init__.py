"""Raw logs become a `Dataset`: a catalogue, ordered sequences and a split. Imports no torch."""
