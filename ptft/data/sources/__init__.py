"""Where samples lie: drawn scenes, shards, folders, tables, the Hub, mixtures."""
