"""Vector indexes: FAISS, exact search, and generations on disk."""
