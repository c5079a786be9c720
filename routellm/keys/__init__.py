"""Who may use a server, and how much: virtual keys, their limits, and what they have spent."""
