"""One file a format; each turns files into `RawData` and knows nothing of filters and splits."""
