"""Parts that several builders use."""
