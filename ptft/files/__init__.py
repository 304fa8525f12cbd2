"""Files of others and of this user: opened within bounds, hashed, and written whole."""
